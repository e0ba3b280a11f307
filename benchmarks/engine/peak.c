/* What one core of an x86-64 processor does at most: multiply-adds on registers, and reads.
 *
 * Knows instructions and registers; does not know time, threads or models.
 * Invariant: a function does exactly the operations that its comment states, whatever the compiler thinks of them.
 *
 * benchmarks/engine/peak.py compiles this with the machine's own compiler, and calls only what the processor has.
 * The instructions are written out, since a compiler may keep sums in memory, and then a loop measures the memory.
 */

#include <stddef.h>
#include <stdint.h>

/* Twelve sums in registers 2 to 13, none of which waits for another: latency is hidden on units that start two
 * instructions a cycle and take six cycles. All values are zero; the time does not depend on them. */
#define ONE(op, reg, sum) op " %%" reg "0, %%" reg "1, %%" reg sum "\n\t"
#define TWELVE(op, reg)                                                                                       \
    ONE(op, reg, "2") ONE(op, reg, "3") ONE(op, reg, "4") ONE(op, reg, "5") ONE(op, reg, "6")                 \
    ONE(op, reg, "7") ONE(op, reg, "8") ONE(op, reg, "9") ONE(op, reg, "10") ONE(op, reg, "11")               \
    ONE(op, reg, "12") ONE(op, reg, "13")
#define USED                                                                                                  \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",         \
        "xmm12", "xmm13", "xmm14", "xmm15"

/* `rounds` times 24 instructions on registers of one kind; how many multiply-adds one is, is said beside it. */
#define KERNEL(name, op, reg)                                                                                 \
    void name(int64_t rounds) {                                                                               \
        __asm__ volatile("vzeroall" ::: USED);                                                                   \
        for (; rounds > 0; rounds--) __asm__ volatile(TWELVE(op, reg) TWELVE(op, reg)::: USED);               \
        __asm__ volatile("vzeroupper" ::: USED);                                                              \
    }

KERNEL(fp32_256, "vfmadd231ps", "ymm")         /* 8 multiply-adds an instruction */
KERNEL(fp32_512, "vfmadd231ps", "zmm")         /* 16 */
KERNEL(int8_256, "%{vex%} vpdpbusd", "ymm")    /* 32, AVX-VNNI */
KERNEL(int8_512, "vpdpbusd", "zmm")            /* 64, AVX-512 VNNI */
KERNEL(bf16_512, "vdpbf16ps", "zmm")           /* 32 */

/* `rounds` times all of `bytes` at `data`, which is a multiple of 512. */
void read_256(const char *data, size_t bytes, int64_t rounds) {
    for (; rounds > 0; rounds--)
        for (const char *at = data; at < data + bytes; at += 512)
            __asm__ volatile(
                "vmovups (%0), %%ymm0\n\tvmovups 32(%0), %%ymm1\n\tvmovups 64(%0), %%ymm2\n\t"
                "vmovups 96(%0), %%ymm3\n\tvmovups 128(%0), %%ymm4\n\tvmovups 160(%0), %%ymm5\n\t"
                "vmovups 192(%0), %%ymm6\n\tvmovups 224(%0), %%ymm7\n\tvmovups 256(%0), %%ymm0\n\t"
                "vmovups 288(%0), %%ymm1\n\tvmovups 320(%0), %%ymm2\n\tvmovups 352(%0), %%ymm3\n\t"
                "vmovups 384(%0), %%ymm4\n\tvmovups 416(%0), %%ymm5\n\tvmovups 448(%0), %%ymm6\n\t"
                "vmovups 480(%0), %%ymm7"
                :: "r"(at) : "memory", USED);
    __asm__ volatile("vzeroupper" ::: USED);
}
