// colo: the command line. Every command is a function of its own file; here are only their words. Exit codes: 0 done,
// 1 it was tried and did not hold, 2 the call or the host is wrong and nothing was started, 130 interrupted.

import { Argument, Command, InvalidArgumentError, Option } from 'commander';
import { ColoError, errorCodes, errorText } from '../base/errors.ts';
import { certificateRoles, roles } from '../base/roles.ts';
import { faultKinds } from '../demo/faults.ts';
import { Interrupted, isInterrupted } from './interrupt.ts';
import { isCluster } from './target.ts';

function seconds(text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value < 4 || value > 3600)
    throw new InvalidArgumentError('a number of seconds from 4 to 3600');
  return value;
}

function hosts(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 3 || value > 9)
    throw new InvalidArgumentError('3 to 9: a new secondary must be left after one has died');
  return value;
}

function count(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('a whole number from 1');
  return value;
}

function wholeNumber(text: string): number {
  return text === '0' ? 0 : count(text);
}

/** Modules are loaded when their command runs: `colo status` shall not wait for what `colo demo` needs. */
function build(finish: (code: number) => void): Command {
  // Before the commands are added, because they inherit it then: a wrong option must end with our exit code.
  const program = new Command('colo').exitOverride();
  program
    .description(
      'Protects virtual machines: two copies run, their answers are compared, and when one host dies the ' +
        'other goes on.',
    )
    .showHelpAfterError('(try --help)')
    .configureHelp({ showGlobalOptions: true });
  addDemo(program, finish);
  addControl(program, finish);
  addCluster(program, finish);
  addCertificate(program, finish);
  addService(program, finish);
  addTools(program, finish);
  return program;
}

function addDemo(program: Command, finish: (code: number) => void): void {
  program
    .command('demo')
    .description('protect a real Linux guest, kill its primary under load, and check that no client noticed')
    .addOption(new Option('--mode <mode>', 'how to protect').choices(['colo', 'remus', 'none']).default('colo'))
    .addOption(
      new Option('--fault <fault>', 'what happens in the middle').choices([...faultKinds]).default('primary-kill'),
    )
    .addOption(
      new Option('--guest <guest>', 'demo: Linux with servers; bare: a guest of ours that runs under every KVM')
        .choices(['demo', 'bare'])
        .default('demo'),
    )
    .addOption(
      new Option('--accel <accel>', 'QEMU emulates, or uses KVM, which has to run the guest')
        .choices(['tcg', 'kvm'])
        .default('tcg'),
    )
    .addOption(new Option('--machine <type>', 'of QEMU').choices(['pc', 'q35', 'microvm']))
    .addOption(new Option('--seconds <n>', 'how long the clients run').argParser(seconds).default(16))
    .addOption(
      new Option('--hosts <n>', 'on this many hosts, as network namespaces of this machine (needs root)').argParser(
        hosts,
      ),
    )
    .addOption(
      new Option(
        '--clients <where>',
        'link: in a network namespace, over IPv4 and IPv6; gateway: IPv4 only, no rights needed',
      )
        .choices(['auto', 'link', 'gateway'])
        .default('auto'),
    )
    .option('--name <vm>', 'name of the VM, so that several demos can run at once', 'demo')
    .addOption(
      new Option('--failovers <n>', 'kill the primary this often, with repair between').argParser(count).default(1),
    )
    .option('--verify', 'compare the whole RAM of both sides after every checkpoint (longer pauses)', false)
    .addOption(
      new Option('--tracker <kind>', 'how written pages are found (protect.tracker of a spec)')
        .choices(['auto', 'userfaultfd', 'soft-dirty', 'compare'])
        .default('auto'),
    )
    .option('--disk', 'a guest with PostgreSQL and redis on a root disk: no acknowledged commit is lost', false)
    .addOption(new Option('--seed <n>', 'with --disk: decides the moment of the fault').argParser(count))
    .addOption(
      new Option('--flush <rule>', 'with --disk: when a write is done')
        .choices(['local', 'replicated'])
        .default('local'),
    )
    .option('--report <file>', 'write the report as JSON to a file')
    .option('--json', 'print only the report, as JSON', false)
    .action(async (options) => {
      const { refuseContradiction, refuseUnwritable } = await import('./demo/arguments.ts');
      refuseContradiction(options);
      await refuseUnwritable(options.report);
      finish(
        options.disk === true
          ? await (await import('./demo/bank.ts')).bankDemo(options)
          : await (await import('./demo/demo.ts')).demo(options),
      );
    });
}

function addControl(program: Command, finish: (code: number) => void): void {
  asking(
    program
      .command('run <spec>')
      .description(
        'run and protect the VM of a spec file (YAML; see examples/) on this machine until Ctrl-C; with ' +
          '--at, on a cluster',
      )
      .option(
        '--json',
        'print the status of both nodes as a line of JSON each second; with --at, of the VM, once',
        false,
      ),
  )
    .addOption(logLevelOption())
    .option('--monitor <port>', 'without --at: metrics and health at this port of 127.0.0.1', Number)
    .option('--on <node>', 'with --at: the node that boots it')
    .option('--no-wait', 'with --at: do not wait until it is protected')
    .option('--force', 'with --at: nodes that may still run a removed VM with its name or an address are off', false)
    .action(async (spec, options) =>
      finish(
        isCluster(options)
          ? await (await import('./nodes.ts')).runOnCluster(spec, options)
          : await (await import('./run.ts')).run(spec, options),
      ),
    );
  asking(
    program
      .command('status [vm]')
      .description('show the VMs that run on this machine: roles, epochs, checkpoints and why they happened')
      .option('--watch', 'keep showing until Ctrl-C', false)
      .option('--json', 'as JSON', false),
  ).action(async (vm, options) =>
    finish(
      isCluster(options)
        ? await (await import('./nodes.ts')).vmStatus(named(vm), options)
        : await (await import('./control.ts')).status(vm, options),
    ),
  );
  onCluster(program, 'checkpoint [vm]', 'take a checkpoint now and wait until it is committed and applied').action(
    async (vm, options) =>
      finish(
        isCluster(options)
          ? await (await import('./nodes.ts')).checkpointVm(named(vm), options)
          : await (await import('./control.ts')).checkpoint(vm, options),
      ),
  );
  onCluster(program, 'failover [vm]', 'planned failover: the secondary takes over now').action(async (vm, options) =>
    finish(
      isCluster(options)
        ? await (await import('./nodes.ts')).failoverVm(named(vm), options)
        : await (await import('./control.ts')).failover(vm, options),
    ),
  );
}

/** With the options that name a cluster and who asks it (target.ts). */
function asking(command: Command): Command {
  return command
    .addOption(new Option('--at <colod>', `ask this colod of a cluster: the path of its socket, or https://HOST:PORT`))
    .addOption(new Option('--identity <folder>', 'who asks: the certificates that `colo join` made'))
    .addOption(new Option('--token-file <file>', 'who asks: a token (`colo token`), with --ca'))
    .addOption(new Option('--ca <file>', "the cluster's ca.pem"));
}

function named(vm: string | undefined): string {
  if (vm !== undefined) return vm;
  throw new ColoError(errorCodes.input, 'which VM?', { hint: 'name it, as `colo ps` shows it' });
}

/**
 * A command with the options of one that asks a cluster; isCluster tells whether it is meant for one where it need not
 * be.
 */
function onCluster(program: Command, name: string, description: string): Command {
  return asking(program.command(name).description(description).option('--json', 'as JSON', false));
}

function addService(program: Command, finish: (code: number) => void): void {
  const module = () => import('./nodes.ts');
  onCluster(program, 'nodes', 'the nodes of a cluster: what each runs, and what room it has')
    .option('--watch', 'keep showing until Ctrl-C', false)
    .action(async (options) => finish(await (await module()).nodes(options)));
  onCluster(program, 'ps', 'the VMs of a cluster: where they run, and whether they are protected')
    .option('--watch', 'keep showing until Ctrl-C', false)
    .action(async (options) => finish(await (await module()).ps(options)));
  onCluster(program, 'drain <node>', 'move everything away from a node of a cluster, and wait until it is empty')
    .option('--no-wait', 'do not wait')
    .action(async (node, options) => finish(await (await module()).drain(node, options)));
  onCluster(program, 'undrain <node>', 'a drained node may be used again').action(async (node, options) =>
    finish(await (await module()).undrain(node, options)),
  );
  onCluster(program, 'logs <vm>', "the end of a VM's log on each of its nodes")
    .addOption(new Option('--lines <n>', 'how many').argParser(count).default(50))
    .option('--console', "the guest's serial console instead", false)
    .action(async (vm, options) => finish(await (await module()).logs(vm, options)));
  onCluster(program, 'rm <vm>', 'stop a VM of a cluster on all nodes and forget it; its disks stay').action(
    async (vm, options) => finish(await (await module()).rm(vm, options)),
  );
  program
    .command('colod')
    .description('the service of one host of a cluster (docs/operating.md); its VMs go on when it ends')
    .option('--config <file>', 'its configuration', '/etc/colo/colod.yaml')
    .option('--check', 'only check the configuration', false)
    .option(
      '--hand-over',
      'only hand over the VMs of this node, before its host is shut down (colo-handover.service)',
      false,
    )
    .action(async (options) => finish(await (await import('./service.ts')).colod(options)));
  program
    .command('token <file> <name>')
    .description("make a token for the service's API; its hash goes into the file, the token to standard output")
    .addOption(new Option('--role <role>', 'what its bearer may do').choices(roles).default('viewer' as const))
    .option('--json', 'as JSON', false)
    .action(async (file, name, options) => finish(await (await import('./service.ts')).token(file, name, options)));
}

function addCluster(program: Command, finish: (code: number) => void): void {
  program
    .command('init <folder>')
    .description('make the certificate authority of a new cluster')
    .option('--name <name>', 'of the cluster', 'colo')
    .option('--json', 'as JSON', false)
    .action(async (folder, options) => finish(await (await import('./cluster.ts')).init(folder, options)));
  program
    .command('join <folder> <node>')
    .description('make the certificate of a node, or of somebody with a role, with the authority in the folder')
    .option('--address <address...>', 'under which the node is reached', [])
    .addOption(new Option('--role <role>', 'whom it is for').choices(certificateRoles).default('node' as const))
    .option('--json', 'as JSON', false)
    .action(async (folder, node, options) => finish(await (await import('./cluster.ts')).join(folder, node, options)));
}

function addCertificate(program: Command, finish: (code: number) => void): void {
  program
    .command('certificate')
    .description('renew a certificate, or revoke those of a name, with the authority in the folder')
    .addArgument(new Argument('<what>', 'renew or revoke').choices(['renew', 'revoke'] as const))
    .argument('<folder>', 'of the authority')
    .argument('<name>', 'of the node or person')
    .option('--old', 'revoke: all but the newest one', false)
    .option('--json', 'as JSON', false)
    .action(async (what, folder, name, options) =>
      finish(await (await import('./cluster.ts')).certificate(what, folder, name, options)),
    );
}

const benchWords =
  'measure: checkpoint (pause per phase by dirty pages and RAM), clocks (how a guest without NTP keeps time), ' +
  'disk (pause by bytes written; writes in the guest; a database), failover (the gap that a client sees, for ' +
  'each kind of death; needs root), memory (of both nodes, against what is promised), ' +
  'proxy (frames a second, beside colo-compare), ' +
  'similarity (what each measure is worth)';

function addBench(program: Command, finish: (code: number) => void): void {
  program
    .command('bench <what>')
    .description(benchWords)
    .addOption(
      new Option('--rounds <n>', 'repetitions per figure, 30 (similarity: 3); memory: seconds of each run').argParser(
        count,
      ),
    )
    .addOption(
      new Option('--pages <n>', 'checkpoint: only the guests that write so many pages (0, 1000 or 10000)').argParser(
        wholeNumber,
      ),
    )
    .addOption(
      new Option('--accel <name>', 'checkpoint, clocks: what runs the guest (default: tcg; clocks: kvm)').choices([
        'tcg',
        'kvm',
      ]),
    )
    .addOption(new Option('--minutes <n>', 'clocks: for how long (default: 2)').argParser(count))
    .addOption(
      new Option('--guest <name>', 'checkpoint: which guest (default: linux; under kvm bare)').choices([
        'linux',
        'bare',
      ]),
    )
    .option('--json', 'as JSON', false)
    .action(async (what, options) => finish(await (await import('./dev/tools.ts')).bench(what, options)));
}

function addTools(program: Command, finish: (code: number) => void): void {
  asking(
    program
      .command('doctor')
      .description('say what this host can do and what to do about what is missing; with --cluster, of a whole cluster')
      .option('--install', 'first install the Debian packages that a node needs (as root)', false)
      .option('--cluster', 'ask a colod about all nodes: etcd, bridges, certificates, clocks, versions', false)
      .option(
        '--prove',
        'show it, in about a minute: 200 captures, 50 loads and a failover with TCP clients, everything verified',
        false,
      )
      .addOption(new Option('--accel <accel>', 'with --prove: under this; KVM where it works').choices(['tcg', 'kvm']))
      .option('--json', 'as JSON', false),
  ).action(async (options) =>
    finish(
      options.cluster === true || isCluster(options)
        ? await (await import('./nodes.ts')).clusterDoctor(options)
        : options.prove === true
          ? await (await import('./prove.ts')).proveCommand(options)
          : await (await import('./dev/tools.ts')).doctorCommand(options),
    ),
  );
  addBench(program, finish);
  program
    .command('sim')
    .description('simulate both nodes, network, arbiter and clients from seeds, with faults, and check every promise')
    .addOption(new Option('--seed <n>', 'the first seed; alone: only this one').argParser(count))
    .addOption(new Option('--seeds <count>', 'how many seeds (default 1000)').argParser(count))
    .option('--trace', 'print every event of one seed', false)
    .option('--json', 'as JSON', false)
    .action(async (options) => finish(await (await import('./dev/sim.ts')).sim(options)));
  program
    .command('check [only...]')
    .description('rules of our own (layers, circles, widths), types, lint, format: all, or those that are named')
    .option('--json', 'as JSON', false)
    .action(async (only, options) => finish(await (await import('./dev/check.ts')).check(only, options)));
  program
    .command('test [suite]')
    .description('run tests: all (default), unit, integration, soak; mutants: small mistakes, and what notices each')
    .option('--name <pattern>', 'only tests whose name matches')
    .option('--file <text>', 'only files whose path contains this')
    .option('--json', 'the totals as JSON; what the tests say goes to standard error', false)
    .action(async (suite, options) => finish(await (await import('./dev/tools.ts')).testCommand(suite, options)));
}

/** `debug` writes a line for each checkpoint: a gigabyte a day. */
function logLevelOption(): Option {
  return new Option('--log-level <level>', 'without --at: what the logs of the nodes tell')
    .choices(['error', 'warn', 'info', 'debug', 'trace'])
    .default('info');
}

async function main(): Promise<void> {
  let code = 0;
  const program = build((value) => {
    code = value;
  });
  try {
    await program.parseAsync();
  } catch (error) {
    const own = codeOf(error);
    code = isInterrupted() ? 130 : own;
  }
  process.exitCode = code;
}

function codeOf(error: unknown): number {
  if (error instanceof Interrupted) return 130;
  if (error instanceof Error && 'exitCode' in error && 'code' in error && String(error.code).startsWith('commander.'))
    return error.exitCode === 0 ? 0 : 2;
  process.stderr.write(`colo: ${errorText(error)}\n`);
  if (!(error instanceof ColoError)) {
    process.stderr.write(error instanceof Error ? `${error.stack ?? ''}\n` : '');
    return 1;
  }
  if (error.hint !== undefined) process.stderr.write(`  ${error.hint}\n`);
  return error.code === errorCodes.input || error.code === errorCodes.host ? 2 : 1;
}

await main();
