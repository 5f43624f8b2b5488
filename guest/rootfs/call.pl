# Port 11: connections that the guest opens.
#
# A client sends a line "call ADDRESS PORT" and reads one line back: "connected", or why not. From then on the guest asks
# numbered questions over its own connection, the next one when the one before has come back word for word, until the
# other side closes or answers wrongly. Never by its own clock, so two copies ask alike.
use strict;
require '/services/connections.pl';

my $lineBytesMax = 128;

# Family and packed address of an IPv4 or IPv6 address; nothing for other text.
sub packedAddress {
  my ($text, $port) = @_;
  return if $port < 1 || $port > 65535;
  if ($text =~ /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/) {
    return (2, pack('S n C4 x8', 2, $port, $1, $2, $3, $4));
  }
  my ($left, $right) = split(/::/, $text, 2);
  my @left = split(/:/, $left);
  my @right = defined $right ? split(/:/, $right) : ();
  my $zeros = 8 - @left - @right;
  return if $zeros < 0 || (defined $right ? 0 : $zeros != 0);
  my @words = (@left, (0) x $zeros, @right);
  for my $word (@words) { return unless $word =~ /^[0-9a-f]{1,4}$/ }
  return (10, pack('S n N n8 L', 10, $port, 0, (map { hex } @words), 0));
}

sub readLine {
  my ($socket, $text) = @_;
  until ($$text =~ /\n/) {
    return if length $$text > $lineBytesMax;
    return unless sysread($socket, $$text, $lineBytesMax, length $$text);
  }
  $$text =~ s/^([^\n]*)\r?\n//;
  return $1;
}

sub ask {
  my ($call) = @_;
  my $input = '';
  for (my $number = 0; ; $number++) {
    my $question = "question $number of a session that the guest has opened";
    syswrite($call, "$question\n");
    my $answer = readLine($call, \$input);
    return unless defined $answer && $answer eq $question;
  }
}

sub serve {
  my ($control) = @_;
  my $input = '';
  my $line = readLine($control, \$input);
  return unless defined $line;
  my ($family, $address);
  ($family, $address) = packedAddress($1, $2) if $line =~ /^call ([0-9a-f.:]{2,39}) (\d{1,5})\r?$/;
  if (!defined $address) { syswrite($control, "refused: say call ADDRESS PORT\n"); return }
  socket(my $call, $family, 1, 0) or return;
  setsockopt($call, 6, 1, pack('i', 1));
  if (!connect($call, $address)) { syswrite($control, "refused: error " . ($! + 0) . "\n"); return }
  syswrite($control, "connected\n");
  close($control);
  ask($call);
}

serveConnections(11, \&serve);
