/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The program of an interface that several programs share, by libxdp's protocol (xdp-tools,
 * lib/libxdp/protocol.org): it calls up to ten functions in turn, which the programs take the places of
 * (BPF_PROG_TYPE_EXT). libxdp knows the names of the functions, and reads `conf`, the only map. Compiled once
 * for each version of the protocol, 2 and 3.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define SLOTS 10
/* What a function returns that no program has taken the place of. */
#define NOBODY 31

struct xdp_dispatcher_config {
    __u8 magic;
    __u8 dispatcher_version;
    __u8 num_progs_enabled;
    __u8 is_xdp_frags;
    /* By slot: the verdicts, as bits, after which the next program runs. */
    __u32 chain_call_actions[SLOTS];
    __u32 run_prios[SLOTS];
    __u32 program_flags[SLOTS];
#if VERSION >= 3
    __u8 is_xdp_devbound;
    __u8 pad[3];
#endif
};

/* Constant once it is loaded, so the verifier leaves out the slots that are not used; volatile, since the
 * compiler must not do the like. */
static const volatile struct xdp_dispatcher_config conf = {};

/*
 * The helper changes nothing. Since Linux 6.13, a program that moves a packet's bounds may only take the
 * place of a function that does.
 */
#define SLOT(n)                                                                                              \
    __attribute__((noinline)) int prog##n(struct xdp_md *ctx)                                                \
    {                                                                                                        \
        volatile int verdict = NOBODY;                                                                       \
                                                                                                             \
        if (bpf_xdp_adjust_head(ctx, 0))                                                                     \
            return XDP_ABORTED;                                                                              \
        return verdict;                                                                                      \
    }

SLOT(0)
SLOT(1)
SLOT(2)
SLOT(3)
SLOT(4)
SLOT(5)
SLOT(6)
SLOT(7)
SLOT(8)
SLOT(9)

#define RUN(n)                                                                                               \
    if (conf.num_progs_enabled <= n)                                                                         \
        return XDP_PASS;                                                                                     \
    verdict = prog##n(ctx);                                                                                  \
    if (!(conf.chain_call_actions[n] & 1U << (verdict & 31)))                                                \
        return verdict;

SEC("xdp")
int xdp_dispatcher(struct xdp_md *ctx)
{
    int verdict;

    RUN(0)
    RUN(1)
    RUN(2)
    RUN(3)
    RUN(4)
    RUN(5)
    RUN(6)
    RUN(7)
    RUN(8)
    RUN(9)
    return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
/* The version once more, as a type: older readers look for it there. */
__uint(dispatcher_version, VERSION) SEC("xdp_metadata");
