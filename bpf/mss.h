/* SPDX-License-Identifier: GPL-2.0-only */
/* The MSS option of TCP SYNs (RFC 9293, 3.7.1), lowered to what a tunnel leaves room for. */
#ifndef MPTM_MSS_H
#define MPTM_MSS_H

#include <linux/tcp.h>

#include "csum.h"
#include "parse.h"

#define TCP_MAX_OPTIONS 40
#define TCP_OPTION_END 0
#define TCP_OPTION_NOP 1
#define TCP_OPTION_MSS 2

/* Writes another MSS at `at`, and mends the TCP checksum (RFC 1624, eqn. 3). */
static __always_inline void write_mss(struct xdp_md *ctx, struct inner *inner, __u32 at, __be16 old,
                                      __be16 new)
{
    __u32 check_at = inner->l4 + offsetof(struct tcphdr, check);
    __u16 check;

    if (bpf_xdp_load_bytes(ctx, check_at, &check, sizeof(check)) ||
        bpf_xdp_store_bytes(ctx, at, &new, sizeof(new)))
        return;
    /* An option may begin anywhere: at an odd place its bytes are in the other halves of words. */
    if ((at - inner->l4) & 1) {
        old = __builtin_bswap16(old);
        new = __builtin_bswap16(new);
    }
    check = csum_fold((__u16)~check + (__u16)~old + new);
    bpf_xdp_store_bytes(ctx, check_at, &check, sizeof(check));
}

struct mss_walk {
    struct xdp_md *ctx;
    struct inner *inner;
    __u32 at;  /* of the next option in the frame */
    __u32 end; /* of the options */
    __u32 most;
    __u32 pad;
};

/* Steps over one option. */
static int step_tcp_option(__u32 index, struct mss_walk *walk)
{
    __u8 option[4]; /* kind, length, and what the MSS option has */

    /* A shorter one at the very end is none that matters. */
    if (walk->at + sizeof(option) > walk->end ||
        bpf_xdp_load_bytes(walk->ctx, walk->at, option, sizeof(option)))
        return 1;
    if (option[0] == TCP_OPTION_END)
        return 1;
    if (option[0] == TCP_OPTION_NOP) {
        walk->at++;
        return 0;
    }
    if (option[0] == TCP_OPTION_MSS && option[1] == sizeof(option)) {
        __u32 mss = option[2] << 8 | option[3];

        if (mss > walk->most)
            write_mss(walk->ctx, walk->inner, walk->at + 2, bpf_htons(mss), bpf_htons(walk->most));
        return 1;
    }
    if (option[1] < 2)
        return 1;
    walk->at += option[1];
    return 0;
}

/* `most` is the largest MSS that a SYN may announce. Packet pointers stay what they are. */
__noinline int clamp_mss(struct xdp_md *ctx, struct inner *inner, __u32 most)
{
    struct tcphdr tcp;

    if (!inner || !inner->l4 || inner->protocol != IPPROTO_TCP || inner->l4 + sizeof(tcp) > inner->end ||
        bpf_xdp_load_bytes(ctx, inner->l4, &tcp, sizeof(tcp)) || !tcp.syn)
        return 0;
    struct mss_walk walk = {
        .ctx = ctx,
        .inner = inner,
        .at = inner->l4 + sizeof(tcp),
        .end = inner->l4 + tcp.doff * 4,
        .most = most,
    };

    if (walk.end > inner->end)
        return 0;
    bpf_loop(TCP_MAX_OPTIONS, step_tcp_option, &walk, 0);
    return 0;
}

#endif
