# What writing to the root disk costs, seen from inside: `perl write.pl NAME ROUNDS`, told by a line to port 9 (init).
#
# Each round has two parts, each within one file that was made whole before, so that no write allocates:
#
#   sequential   1 MiB at a time, one behind the other, from the beginning again at the end
#   random       4 KiB at a time, at places that are the same in every run
#
# The file is opened so that a write is done when the disk has it (O_DSYNC: as write and fdatasync). A part ends after its
# writes or after some seconds, whichever comes first. Two lines on the console for each part, NAME.ROUND.PART:
#
#   colo-guest writes WHAT.
#   colo-guest wrote WHAT COUNT BYTES NS P50_NS P99_NS MAX_NS.
#
# The times are by the guest's clock, which stands still while the guest does: the host takes the time between the lines.
use strict;

my $fileMib = 16;
my %parts = (sequential => { bytes => 1 << 20, count => 64 }, random => { bytes => 4096, count => 1024 });
my $partNsMax = 15e9;
my $roundsMax = 20;
my $path = '/var/lib/writes';

sub now {
  my $time = "\0" x 16;
  syscall(228, 1, $time) == 0 or die "clock_gettime: $!";
  my ($seconds, $ns) = unpack('q q', $time);
  return $seconds * 1e9 + $ns;
}

# The whole of $bytes at $at.
sub put {
  my ($file, $at, $bytes) = @_;
  sysseek($file, $at, 0) or die "seek: $!";
  my $done = 0;
  while ($done < length $$bytes) {
    my $more = syswrite($file, $$bytes, length($$bytes) - $done, $done);
    die "write: $!" unless $more;
    $done += $more;
  }
}

sub measure {
  my ($file, $what, $part, $seed) = @_;
  my ($bytes, $count) = @{$parts{$part}}{qw(bytes count)};
  my $places = ($fileMib << 20) / $bytes;
  # Bytes of this part alone: what was written before never stands for it.
  my $block = pack('N', $seed) x ($bytes / 4);
  my $state = $seed;
  print "colo-guest writes $what.$part.\n";
  my ($start, @took) = (now());
  for (my $index = 0; $index < $count; $index++) {
    my $before = now();
    last if $before - $start > $partNsMax;
    $state = ($state * 1103515245 + 12345) & 0x7fffffff;
    put($file, ($part eq 'random' ? ($state >> 8) % $places : $index % $places) * $bytes, \$block);
    push @took, now() - $before;
  }
  my $ns = now() - $start;
  my @sorted = sort { $a <=> $b } @took;
  my @shown = map { sprintf '%.0f', $_ } $ns, $sorted[@sorted / 2], $sorted[@sorted * 0.99], $sorted[-1];
  print join(' ', "colo-guest wrote $what.$part", scalar @took, @took * $bytes, @shown), ".\n";
}

my ($name, $rounds) = @ARGV;
$| = 1;
die "say write NAME ROUNDS\n" unless $name =~ /^[a-z]{1,20}$/ && $rounds =~ /^\d{1,2}$/ && $rounds <= $roundsMax;
# O_RDWR | O_CREAT, then O_RDWR | O_DSYNC.
sysopen(my $whole, $path, 2 | 0100, 0600) or die "open: $!";
my $zeros = "\0" x (1 << 20);
put($whole, $_ << 20, \$zeros) for 0 .. $fileMib - 1;
# fsync
syscall(74, fileno($whole)) == 0 or die "fsync: $!";
close($whole);
sysopen(my $file, $path, 2 | 010000) or die "open: $!";
for my $round (1 .. $rounds) {
  measure($file, "$name.$round", 'sequential', 2 * $round);
  measure($file, "$name.$round", 'random', 2 * $round + 1);
}
