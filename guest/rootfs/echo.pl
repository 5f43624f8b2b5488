# Port 7, IPv4 and IPv6: the TCP session service and the UDP echo, in one process with one loop.
#
# One process, because one per datagram or per connection piles up and makes two copies differ in scheduling.
# Bytes come back as they are. A connection with answers not yet taken is not read from, so a client that never
# reads costs 64 KiB at most; from the 257th connection on, new ones wait in the listen queue.
use strict;

my $connectionsMax = 256;
my $readBytes = 65536;
my $datagramsPerTurnMax = 64;
# A socket of IPv6 takes IPv4 as well.
my $any = pack('S n N a16 L', 10, 7, 0, "\0" x 16, 0);
$SIG{PIPE} = 'IGNORE';

sub nonblocking { fcntl($_[0], 4, 04000) or die "fcntl: $!" }

socket(my $listener, 10, 1, 0) or die "socket: $!";
setsockopt($listener, 1, 2, pack('i', 1));
bind($listener, $any) or die "bind: $!";
listen($listener, 64) or die "listen: $!";
nonblocking($listener);

socket(my $datagrams, 10, 2, 0) or die "socket: $!";
setsockopt($datagrams, 1, 8, pack('i', 1048576));
bind($datagrams, $any) or die "bind: $!";
nonblocking($datagrams);

my %connections;    # file number -> { socket, pending }

sub acceptAll {
  while (keys(%connections) < $connectionsMax && accept(my $socket, $listener)) {
    nonblocking($socket);
    setsockopt($socket, 6, 1, pack('i', 1));
    $connections{fileno($socket)} = { socket => $socket, pending => '' };
  }
}

sub echoDatagrams {
  for (1 .. $datagramsPerTurnMax) {
    my $peer = recv($datagrams, my $data, 65536, 0);
    return unless defined $peer;
    send($datagrams, $data, 0, $peer);
  }
}

sub wouldBlock { $! == 11 || $! == 4 }

sub flushPending {
  my ($number) = @_;
  my $connection = $connections{$number};
  my $sent = syswrite($connection->{socket}, $connection->{pending});
  if (defined $sent) { substr($connection->{pending}, 0, $sent, '') }
  elsif (!wouldBlock()) { delete $connections{$number} }
}

sub echoStream {
  my ($number) = @_;
  my $connection = $connections{$number};
  my $count = sysread($connection->{socket}, $connection->{pending}, $readBytes);
  if (!defined $count) { delete $connections{$number} unless wouldBlock() }
  elsif ($count == 0) { delete $connections{$number} }
  else { flushPending($number) }
}

while (1) {
  my ($reads, $writes) = ('', '');
  vec($reads, fileno($datagrams), 1) = 1;
  vec($reads, fileno($listener), 1) = 1 if keys(%connections) < $connectionsMax;
  for my $number (keys %connections) {
    if ($connections{$number}{pending} eq '') { vec($reads, $number, 1) = 1 }
    else { vec($writes, $number, 1) = 1 }
  }
  next if select($reads, $writes, undef, undef) < 0;
  echoDatagrams() if vec($reads, fileno($datagrams), 1);
  for my $number (sort { $a <=> $b } keys %connections) {
    if (vec($writes, $number, 1)) { flushPending($number) }
    elsif (vec($reads, $number, 1)) { echoStream($number) }
  }
  acceptAll() if vec($reads, fileno($listener), 1);
}
