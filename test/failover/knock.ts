// A stranger that begins TLS handshakes at ports as fast as it can, as a program of its own: it runs on another host.
//
//    node test/failover/knock.ts COUNT HOST:PORT ...      prints how many of its connections were ended

import { connect } from 'node:tls';

const atOnce = 64;
const [count = '0', ...places] = process.argv.slice(2);
let left = Number(count);
let ended = 0;

async function knock(index: number): Promise<void> {
  const [host = '', port = ''] = (places[index % places.length] ?? '').split(':');
  const socket = connect({ host, port: Number(port), rejectUnauthorized: false });
  socket.on('error', () => undefined);
  socket.resume();
  await new Promise((resolve) => void socket.once('close', resolve));
  ended += 1;
}

async function knockOn(): Promise<void> {
  while (left > 0) {
    left -= 1;
    await knock(left);
  }
}

await Promise.all(Array.from({ length: atOnce }, knockOn));
process.stdout.write(`${ended}\n`);
