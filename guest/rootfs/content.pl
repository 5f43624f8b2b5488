# Makes what nginx serves: /big of ARGV[0] MiB and /small of 405 KiB, in tmpfs.
#
# /big is a row of 64 KiB blocks; each is a numbered 64-byte header and the same incompressible bytes, so that a
# block lost, repeated or moved changes the sum, and making 64 MiB takes a fraction of a second under emulation.
# guest/big-file.ts computes the same bytes on the host.
use strict;

my ($mebibytes) = @ARGV;
my $blockBytes = 65536;
my $headerBytes = 64;

open(my $source, '<:raw', '/services/block') or die "block: $!";
read($source, my $body, $blockBytes - $headerBytes) == $blockBytes - $headerBytes or die 'block is short';

sub make {
  my ($path, $bytes) = @_;
  open(my $target, '>:raw', "$path.new") or die "$path: $!";
  for (my $index = 0; $index * $blockBytes < $bytes; $index++) {
    my $block = sprintf("%-63s\n", "colo block $index") . $body;
    my $left = $bytes - $index * $blockBytes;
    my $length = $left < $blockBytes ? $left : $blockBytes;
    syswrite($target, $block, $length) == $length or die "$path: $!";
  }
  close($target);
  rename("$path.new", $path) or die "$path: $!";
}

make('/srv/www/small', 405 * 1024);
make('/srv/www/big', $mebibytes * 1024 * 1024);
