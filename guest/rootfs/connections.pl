# Serves the connections to one port, IPv4 and IPv6, one process each: serveConnections(PORT, \&serve), which does not return.
# From the ninth connection on, new ones wait in the listen queue.
use strict;

my $connectionsMax = 8;

sub serveConnections {
  my ($port, $serve) = @_;
  my $children = 0;
  $SIG{PIPE} = 'IGNORE';
  # A socket of IPv6 takes IPv4 as well.
  socket(my $listener, 10, 1, 0) or die "socket: $!";
  setsockopt($listener, 1, 2, pack('i', 1));
  bind($listener, pack('S n N a16 L', 10, $port, 0, "\0" x 16, 0)) or die "bind: $!";
  listen($listener, 8) or die "listen: $!";
  while (1) {
    while ($children > 0 && waitpid(-1, $children >= $connectionsMax ? 0 : 1) > 0) { $children-- }
    next unless accept(my $socket, $listener);
    my $child = fork();
    if (!defined $child) { next }
    if ($child == 0) { close($listener); $serve->($socket); exit 0 }
    $children++;
    close($socket);
  }
}

1;
