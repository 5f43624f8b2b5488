// What goes into the demo guest: Debian's own kernel, nginx and redis, unmodified, and a few scripts of ours.
//
// Everything comes from Debian's packages by download and unpack, without root and without installing. Only the
// programs named here, the libraries their loader asks for, and the kernel modules with their dependencies are taken:
// a small image boots faster under emulation. docs/guest.md says how to change it.

/** Packages that are taken whole; libraries are found from them (packages.ts). */
export const rootPackages = ['busybox-static', 'nginx', 'redis-server', 'redis-tools', 'perl-base'];

/** Depends on the newest cloud kernel: a small one, with virtio drivers and without the drivers of real hardware. */
export const kernelMetaPackage = 'linux-image-cloud-amd64';

/** Drivers by name, loaded with their dependencies. virtio_blk is for guests with a disk. */
export const modules = ['virtio_pci', 'virtio_mmio', 'virtio_net', 'virtio_blk', 'virtio-rng'];

/**
 * Modules that are there and not loaded: who wants them does. efivarfs: the variables of UEFI, where the machine has
 * it.
 */
export const furtherModules = ['efivarfs'];

/** Path in the image -> path in the unpacked packages. */
export const programs: Record<string, string> = {
  'bin/busybox': 'bin/busybox',
  'usr/sbin/nginx': 'usr/sbin/nginx',
  'usr/bin/redis-server': 'usr/bin/redis-server',
  'usr/bin/perl': 'usr/bin/perl',
};

/** Other files of packages: path in the image -> path in the unpacked packages. */
export const packageFiles: Record<string, string> = {
  'usr/lib/x86_64-linux-gnu/perl-base/strict.pm': 'usr/lib/x86_64-linux-gnu/perl-base/strict.pm',
};

/** The commands of busybox that /init and a curious person on the console use. */
export const applets = ['sh', 'mount', 'insmod', 'ip', 'mkdir', 'usleep', 'sleep'];

/** Path in the image -> file in guest/rootfs. */
export const ownFiles: Record<string, string> = {
  init: 'init',
  'etc/nginx.conf': 'nginx.conf',
  'etc/redis.conf': 'redis.conf',
  'services/content.pl': 'content.pl',
  'services/echo.pl': 'echo.pl',
  'services/connections.pl': 'connections.pl',
  'services/dirty.pl': 'dirty.pl',
  'services/call.pl': 'call.pl',
};

/** Small files written as they stand here. */
export const textFiles: Record<string, string> = {
  'etc/passwd': 'root:x:0:0:root:/:/bin/sh\n',
  'etc/group': 'root:x:0:\n',
};

export const directories = ['dev', 'proc', 'sys', 'srv', 'tmp', 'var/lib/nginx', 'var/log/nginx'];

/**
 * Quiet and quick to boot, and no background work that rewrites memory at moments of its own:
 * tsc=reliable skips the watchdog that moves the clock to a slow device under emulation; the rest of the first line
 * skips probes and work that an emulated machine does not need; panic=-1 ends QEMU (-no-reboot) instead of hanging.
 */
export const kernelCommandLine = [
  'console=ttyS0 quiet panic=-1 reboot=t',
  'tsc=reliable no_timer_check mitigations=off init_on_alloc=0 cryptomgr.notests audit=0',
  'nowatchdog rcupdate.rcu_expedited=1 transparent_hugepage=never random.trust_cpu=on',
].join(' ');

export const ports = { http: 80, redis: 6379, echoTcp: 7, echoUdp: 7, dirty: 9, call: 11 } as const;

export const guestAddress = { address: '10.0.2.15', prefixBits: 24, gateway: '10.0.2.2' } as const;

/** `host` is where clients of the same link stand, as `gateway` is for IPv4. */
export const guestIpv6 = { address: 'fd63:6f6c:6f::15', prefixBits: 64, host: 'fd63:6f6c:6f::2' } as const;

export const readyLine = 'colo-guest ready';
