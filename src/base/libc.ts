// The C library of this process: the system calls that Node has no function for are declared on it, each where it is
// used.

import koffi from 'koffi';

export const libc = koffi.load('libc.so.6');
