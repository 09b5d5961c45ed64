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
static __always_inline void write_mss(struct xdp_md *ctx, struct inner *inner, __u32 at, __be16 old, __be16 new)
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

/* `most` is the largest MSS that a SYN may announce. Packet pointers stay what they are. */
__noinline int clamp_mss(struct xdp_md *ctx, struct inner *inner, __u32 most)
{
    __u8 options[TCP_MAX_OPTIONS] = {};
    struct tcphdr tcp;

    if (!inner || !inner->l4 || inner->protocol != IPPROTO_TCP || inner->l4 + sizeof(tcp) > inner->end ||
        bpf_xdp_load_bytes(ctx, inner->l4, &tcp, sizeof(tcp)) || !tcp.syn)
        return 0;
    __u32 from = inner->l4 + sizeof(tcp);
    __u32 size = tcp.doff * 4 - sizeof(tcp);

    if (size < 4 || size > TCP_MAX_OPTIONS || from + size > inner->end ||
        bpf_xdp_load_bytes(ctx, from, options, size))
        return 0;
    __u32 at = 0;

    for (int i = 0; i < TCP_MAX_OPTIONS && at + 4 <= size && at <= TCP_MAX_OPTIONS - 4; i++) {
        __u8 kind = options[at];
        __u8 length = options[at + 1];

        if (kind == TCP_OPTION_END)
            return 0;
        if (kind == TCP_OPTION_NOP) {
            at++;
            continue;
        }
        if (kind == TCP_OPTION_MSS && length == 4) {
            __u32 mss = options[at + 2] << 8 | options[at + 3];

            if (mss > most)
                write_mss(ctx, inner, from + at + 2, bpf_htons(mss), bpf_htons(most));
            return 0;
        }
        if (length < 2)
            return 0;
        at += length;
    }
    return 0;
}

#endif
