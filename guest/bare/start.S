/*
 * start.S - from the first instruction to C.
 *
 * The guest is packed as Linux is (a bzImage): QEMU hands its two parts to the firmware, which copies them into RAM
 * once, at boot. A machine's reset, which loading a saved state begins with, therefore writes nothing of ours again; it
 * would with an ELF or a multiboot kernel, and virtio rings inside of one would be garbage when the devices look at
 * them.
 *
 *   file   0        0x1f1     0x200   0x22c     0x400
 *          +--------+---------+-------+---------+---------------------------+
 *          | unused | header of the   | setup   | everything else           |
 *          |        | boot protocol   |         |                           |
 *          +--------+-----------------+---------+---------------------------+
 *   runs at   0x10000, in real mode             0x100000, in 32 bits
 *
 * setup (16 bits) -> start32: own tables, long mode -> start64 -> boot() in C, ring 0 -> perhaps to_ring3.
 * Interrupts stay off for ever: the guest looks at its devices again and again.
 */
#define SETUP_SECTORS 1
#define KERNEL_CODE 0x10
#define KERNEL_DATA 0x18
#define TASK 0x40
#define VCPU_START 0x8000
#define VCPUS_MAX 16

        .section .setup, "ax"
        .code16
        .org 0x1f1
        .byte SETUP_SECTORS
        .word 0
        .long payload_paragraphs
        .word 0, 0, 0
        .word 0xaa55
        .org 0x200
        jmp setup
        .org 0x202
        .ascii "HdrS"
        .word 0x0203                    /* the oldest protocol whose command line may lie anywhere */
        .long 0
        .word 0, 0
        .byte 0
        .byte 1                         /* the second part is loaded at 1 MiB */
        .word 0
        .long 0x100000
        .long 0, 0, 0
        .word 0, 0
        .long 0                         /* 0x228: the command line's address, written by QEMU */
        .long 0x37ffffff
setup:  cli
        cld
        xorl %eax, %eax
        movw %ds, %ax
        shll $4, %eax
        movl %eax, %esi                 /* where the header lies; boot() reads the command line's address there */
        addl %eax, setup_gdt_pointer + 2
        lgdtl setup_gdt_pointer
        inb $0x92, %al                  /* address line 20 on; bit 0 would reset the machine */
        orb $2, %al
        andb $0xfe, %al
        outb %al, $0x92
        movl %cr0, %eax
        orl $1, %eax
        movl %eax, %cr0
        ljmpl $8, $0x100000
        .balign 8
setup_gdt:
        .quad 0
        .quad 0x00cf9b000000ffff
        .quad 0x00cf93000000ffff
setup_gdt_pointer:
        .word 23
        .long setup_gdt
        .org (SETUP_SECTORS + 1) * 512

        .section .start, "ax"
        .code32
        .globl start32
start32:
        cli
        cld
        lgdt %cs:gdt_pointer            /* the data segments are still those of real mode */
        ljmp $8, $1f
1:      movl $KERNEL_DATA, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        movl %eax, %fs
        movl %eax, %gs
        movl $bss_start, %edi
        movl $bss_dwords, %ecx
        xorl %eax, %eax
        rep stosl
        /* Pages of 2 MiB for the first 4 GiB, each at its own address, for every ring. */
        movl $page_directory_pointers + 7, page_map
        movl $page_directories + 7, page_directory_pointers
        movl $page_directories + 0x1000 + 7, page_directory_pointers + 8
        movl $page_directories + 0x2000 + 7, page_directory_pointers + 16
        movl $page_directories + 0x3000 + 7, page_directory_pointers + 24
        movl $page_directories, %edi
        movl $0x87, %eax
2:      movl %eax, (%edi)
        addl $8, %edi
        addl $0x200000, %eax
        jnc 2b
        movl %cr4, %eax
        orl $0x20, %eax
        movl %eax, %cr4
        movl $page_map, %eax
        movl %eax, %cr3
        movl $0xc0000080, %ecx
        rdmsr
        orl $0x101, %eax                /* long mode, and system calls as kvm_pvm expects them */
        wrmsr
        movl %cr0, %eax
        orl $0x80000001, %eax
        movl %eax, %cr0
        ljmp $KERNEL_CODE, $start64

        .code64
start64:
        movl $KERNEL_DATA, %ecx
        movl %ecx, %ds
        movl %ecx, %es
        movl %ecx, %ss
        /* A task segment whose bitmap allows ring 3 every port: kvm_pvm looks at it although the I/O level is 3. */
        movw $104, task + 102
        movb $0xff, task + 104 + 8192
        movl $task, %eax
        movw %ax, gdt + TASK + 2
        shrl $16, %eax
        movb %al, gdt + TASK + 4
        movb %ah, gdt + TASK + 7
        movl $TASK, %eax
        ltr %ax
        movl $stack_top, %esp
        movl %esi, %edi
        call boot
3:      hlt
        jmp 3b

/*
 * Where a further vCPU starts, copied to page 8 (vcpus.c): real mode, as the processor was reset. It goes the same way.
 */
        .globl vcpu_start, vcpu_start_end
        .code16
vcpu_start:
        cli
        cld
        xorl %eax, %eax
        movw %ax, %ds
        lgdtl VCPU_START + vcpu_gdt_pointer - vcpu_start
        movl %cr0, %eax
        orl $1, %eax
        movl %eax, %cr0
        ljmpl $8, $vcpu_start32
        .balign 4
vcpu_gdt_pointer:
        .word 79
        .long gdt
vcpu_start_end:
        .code32
vcpu_start32:
        movl $KERNEL_DATA, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        movl %eax, %fs
        movl %eax, %gs
        movl %cr4, %eax
        orl $0x20, %eax
        movl %eax, %cr4
        movl $page_map, %eax
        movl %eax, %cr3
        movl $0xc0000080, %ecx
        rdmsr
        orl $0x101, %eax
        wrmsr
        movl %cr0, %eax
        orl $0x80000001, %eax
        movl %eax, %cr0
        ljmp $KERNEL_CODE, $vcpu_start64
        .code64
vcpu_start64:
        movl $KERNEL_DATA, %ecx
        movl %ecx, %ds
        movl %ecx, %es
        movl %ecx, %ss
        movl vcpu_number, %edi
        movl %edi, %esp
        shll $12, %esp
        addl $vcpu_stacks, %esp
        call vcpu_begin
4:      hlt
        jmp 4b

/*
 * void to_ring3(void): returns in ring 3, on the same stack, with every port allowed. By sysexit, because the emulator
 * of kvm_pvm, which runs all of ring 0, knows no iret of long mode.
 */
        .globl to_ring3
to_ring3:
        pushfq
        orq $0x3000, (%rsp)
        popfq
        movl $0x174, %ecx               /* sysexit takes its segments from here: + 32 for code, + 40 for data */
        movl $KERNEL_CODE, %eax
        xorl %edx, %edx
        wrmsr
        movl $0x3b, %eax
        movl %eax, %ds
        movl %eax, %es
        popq %rdx
        movq %rsp, %rcx
        sysexitq

        .section .data
        .balign 8
gdt:    .quad 0
        .quad 0x00cf9b000000ffff        /* 08 code, 32 bits */
        .quad 0x00af9b000000ffff        /* 10 code, 64 bits */
        .quad 0x00cf93000000ffff        /* 18 data */
        .quad 0x00cffb000000ffff        /* 20 ring 3: code, 32 bits */
        .quad 0x00cff3000000ffff        /* 28 ring 3: data */
        .quad 0x00affb000000ffff        /* 30 ring 3: code, 64 bits, where sysexit looks for it */
        .quad 0x00cff3000000ffff        /* 38 ring 3: data */
        .quad 0x0000890000002068        /* 40 the task segment, of 104 + 8192 + 1 bytes */
        .quad 0
gdt_pointer:
        .word 79
        .long gdt, 0

        .section .bss
        .balign 4096
page_map:
        .skip 4096
page_directory_pointers:
        .skip 4096
page_directories:
        .skip 16384
task:   .skip 104 + 8192 + 1
        .balign 16
        .skip 16384
stack_top:

vcpu_stacks:                            /* that of vCPU n ends at page n; the first page is nobody's */
        .skip VCPUS_MAX * 4096

        .section .note.GNU-stack, "", @progbits
