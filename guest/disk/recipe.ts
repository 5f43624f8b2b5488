// What goes onto the root disk of the disk guest: Debian's PostgreSQL, redis, nginx and dropbear (SSH), unmodified, on
// an ext4 file system, with a first process of ours instead of systemd: under emulation that starts in seconds and not
// in a minute.
//
// The kernel and the way to the disk are the demo guest's (guest/build.ts): its initramfs loads the drivers, mounts
// /dev/vda and goes over to it. docs/disks.md says what the services are.

/** Packages that are unpacked whole; their libraries are found from them. */
export const diskPackages = [
  'busybox-static',
  'nginx',
  'redis-server',
  'redis-tools',
  'postgresql-15',
  'postgresql-client-15',
  'tzdata',
  'dropbear-bin',
  'perl-base',
];

/** Only the just-in-time compiler needs these (100 MB), and it is off. */
export const leftOutPackages = ['libllvm14', 'libz3-4'];

/** Nobody needs these without a person or a package manager. */
export const leftOutPaths = [
  'usr/share/doc',
  'usr/share/man',
  'usr/share/locale',
  'usr/share/lintian',
  'usr/share/bug',
  'usr/lib/postgresql/15/lib/bitcode',
];

export const diskMebibytes = 640;

/** Path on the disk -> file in guest/disk/rootfs, with its mode. */
export const diskFiles: Record<string, { from: string; mode: number }> = {
  'sbin/init': { from: 'init', mode: 0o755 },
  'etc/redis.conf': { from: 'redis.conf', mode: 0o644 },
  'etc/nginx.conf': { from: 'nginx.conf', mode: 0o644 },
  'etc/postgresql.conf': { from: 'postgresql.conf', mode: 0o644 },
  'etc/pg_hba.conf': { from: 'pg_hba.conf', mode: 0o600 },
  'services/write.pl': { from: 'write.pl', mode: 0o644 },
};

export const diskTexts: Record<string, string> = {
  'etc/passwd':
    'root:x:0:0:root:/root:/bin/sh\npostgres:x:100:100::/var/lib/postgresql:/bin/sh\n' +
    'www-data:x:33:33::/var/www:/bin/false\n',
  'etc/group': 'root:x:0:\npostgres:x:100:\nwww-data:x:33:\n',
  'etc/hosts': '127.0.0.1 localhost\n',
  'var/www/index.html': 'a page of a disk that outlives its host\n',
};

export const diskDirectories = [
  'dev',
  'etc/dropbear',
  'root/.ssh',
  'proc',
  'sys',
  'tmp',
  'run/postgresql',
  'var/lib/postgresql',
  'var/lib/redis',
  'var/lib/nginx',
  'var/log/nginx',
  'var/www',
];

/** Commands of busybox on the disk. */
export const diskApplets = [
  ...['sh', 'mount', 'umount', 'ip', 'mkdir', 'chown', 'chmod', 'sleep', 'usleep', 'su', 'nc', 'sync', 'killall5'],
  ...['poweroff', 'cat', 'ls', 'ps', 'date', 'df', 'rm', 'cp', 'tail', 'dd', 'locale', 'grep'],
];

export const diskPorts = { http: 80, redis: 6379, postgres: 5432, ssh: 22, control: 9 } as const;
