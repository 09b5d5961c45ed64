/* SPDX-License-Identifier: GPL-2.0-only */
/* Sums of any part of a frame, for tests: where, of how many bytes, and what to add them to is in the frame's
 * first 12 bytes. */
#include "../../../bpf/csum.h"

char LICENSE[] SEC("license") = "GPL";

SEC("xdp.frags")
int sum(struct xdp_md *ctx)
{
    __u32 *asked = (void *)(long)ctx->data;

    if ((void *)(asked + 3) > (void *)(long)ctx->data_end)
        return 0;
    return csum_range(ctx, asked[0], asked[1], asked[2]);
}
