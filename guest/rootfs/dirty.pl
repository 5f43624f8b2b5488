# Port 9: dirties memory at a chosen rate, for benchmarks.
#
# A client sends a line "dirty PAGES PERIOD_MS" and reads one line back; from then on PAGES pages of a tmpfs file
# are rewritten with changed content every PERIOD_MS, until it sends another line or closes. "end reboot", "end
# poweroff" and "end panic" end the guest at once, without stopping anything first. Late periods are skipped, never made
# up for in a burst.
use strict;
require '/services/connections.pl';

my $pageBytes = 4096;
my $pagesPerWrite = 256;
my $pagesMax = 262144;

# Written from offsets that move by 8 bytes, so that every page differs from what it held before.
open(my $block, '<:raw', '/services/block') or die "block: $!";
read($block, my $pattern, 65536);
my $source = $pattern x 17;
my $offset = 0;

sub nowMs {
  my $time = "\0" x 16;
  syscall(228, 1, $time);
  my ($seconds, $nanoseconds) = unpack('q q', $time);
  return $seconds * 1000 + $nanoseconds / 1e6;
}

sub rewrite {
  my ($file, $pages) = @_;
  sysseek($file, 0, 0);
  while ($pages > 0) {
    my $count = $pages < $pagesPerWrite ? $pages : $pagesPerWrite;
    $offset = ($offset + 8) % 65528;
    my $bytes = $count * $pageBytes;
    (syswrite($file, $source, $bytes, $offset) || 0) == $bytes or return 0;
    $pages -= $count;
  }
  return 1;
}

sub endGuest {
  my ($how) = @_;
  my %command = (reboot => 0x01234567, poweroff => 0x4321fedc);
  if ($how ne 'panic') { syscall(169, 0xfee1dead, 672274793, $command{$how}, 0); return }
  open(my $trigger, '>', '/proc/sysrq-trigger') or return;
  syswrite($trigger, 'c');
}

sub serve {
  my ($socket) = @_;
  my $path = "/srv/dirty/$$";
  open(my $file, '+>:raw', $path) or return;
  unlink($path);
  my ($input, $pages, $periodMs, $dueMs) = ('', 0, 0, 0);
  while (1) {
    my $ready = '';
    vec($ready, fileno($socket), 1) = 1;
    my $waitMs = $dueMs - nowMs();
    my $count = select($ready, undef, undef, $pages ? ($waitMs > 0 ? $waitMs / 1000 : 0) : undef);
    if ($count > 0) {
      return unless sysread($socket, $input, 256, length $input);
      return if length $input > 256;
    }
    if ($input =~ s/^dirty (\d{1,7}) (\d{1,7})\r?\n// && $1 > 0 && $1 <= $pagesMax && $2 > 0) {
      ($pages, $periodMs, $dueMs) = ($1, $2, nowMs());
      syswrite($socket, "dirtying $pages pages every $periodMs ms\n");
    } elsif ($input =~ s/^end (reboot|poweroff|panic)\r?\n//) {
      endGuest($1);
    } elsif ($input =~ s/^[^\n]*\n//) {
      syswrite($socket, "refused: say dirty PAGES PERIOD_MS\n");
    }
    if ($pages && nowMs() >= $dueMs) {
      if (!rewrite($file, $pages)) { syswrite($socket, "refused: not enough memory\n"); return }
      $dueMs += $periodMs;
      $dueMs = nowMs() if $dueMs < nowMs();
    }
  }
}

serveConnections(9, \&serve);
