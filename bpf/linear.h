/* SPDX-License-Identifier: GPL-2.0-only */
/* Having headers in a frame's first buffer, the only one that programs can look at directly. */
#ifndef MPTM_LINEAR_H
#define MPTM_LINEAR_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/*
 * Since Linux 6.18; absent before. Some drivers put little or nothing of a frame into the first of its
 * buffers, and nothing else brings it there: without this, what they receive can be neither encapsulated nor
 * decapsulated.
 */
extern int bpf_xdp_pull_data(struct xdp_md *ctx, __u32 length) __ksym __weak;

/*
 * Sees to it that the first `wanted` bytes of a frame of `length`, or all of a shorter one, are in its first
 * buffer. Where that can't be done, the bounds checks of parse.h will tell. Packet pointers are to be derived
 * again.
 */
static __always_inline void linearize(struct xdp_md *ctx, __u32 length, __u32 wanted)
{
    void *data = (void *)(long)ctx->data;

    if (wanted > length)
        wanted = length;
    if (data + wanted > (void *)(long)ctx->data_end && bpf_xdp_pull_data)
        bpf_xdp_pull_data(ctx, wanted);
}

#endif
