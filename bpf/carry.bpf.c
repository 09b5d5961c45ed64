/* SPDX-License-Identifier: GPL-2.0-only */
/* What has to be done in the kernel when maps are replaced: an object of its own, loaded for that moment. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

/* The new one: it is set before the object is loaded. */
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32); /* tunnel id */
    __type(value, struct mptm_tunnel_stats);
} tunnel_stats SEC(".maps");

/* What BPF_PROG_TEST_RUN is given as a packet. */
struct carried {
    __u32 tunnel;
    __u32 pad;
    struct mptm_tunnel_stats counted;
};

static __always_inline void add(struct mptm_counter *to, const struct mptm_counter *from)
{
    to->packets += from->packets;
    to->bytes += from->bytes;
}

/*
 * Adds to a tunnel's counters. From user space that would lose what a program counts between reading and
 * writing; here it is done on one CPU, with softirqs off, where nobody else writes to that CPU's counters.
 * Readers sum up the CPUs, so any of them will do.
 */
SEC("xdp")
int mptm_carry(struct xdp_md *ctx)
{
    struct carried *carried = (void *)(long)ctx->data;

    if ((void *)(carried + 1) > (void *)(long)ctx->data_end)
        return XDP_ABORTED;
    __u32 id = carried->tunnel;
    struct mptm_tunnel_stats *stats = bpf_map_lookup_elem(&tunnel_stats, &id);

    if (!stats)
        return XDP_ABORTED;
    add(&stats->encap, &carried->counted.encap);
    add(&stats->decap, &carried->counted.decap);
    return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
