/* SPDX-License-Identifier: GPL-2.0-only */
/* Counters and events: the one place that turns a reason into a counter and a verdict. */
#ifndef MPTM_STATS_H
#define MPTM_STATS_H

#include "maps.h"

/* What the packet path returns: an XDP action, or a drop with its reason. */
#define DROP(reason) (-(int)(reason))

static __always_inline void count(struct mptm_counter *counter, __u32 bytes)
{
    counter->packets++;
    counter->bytes += bytes;
}

static __always_inline int finish(enum mptm_program program, int verdict, __u32 length)
{
    __u32 action = verdict;
    struct mptm_counter *counter;

    if (verdict < 0) {
        __u32 reason = -verdict;

        counter = bpf_map_lookup_elem(&drops, &reason);
        if (counter)
            count(counter, length);
        action = XDP_DROP;
    }
    __u32 row = program * MPTM_ACTIONS + (action & (MPTM_ACTIONS - 1));

    counter = bpf_map_lookup_elem(&actions, &row);
    if (counter)
        count(counter, length);
    return action;
}

/* Tells `events` about a packet of a tunnel with `debug = true`, as it looks now. */
static __noinline int tell(struct xdp_md *ctx, __u32 tunnel, __u32 program, int verdict)
{
    struct mptm_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

    if (!event)
        return 0;
    __u32 length = bpf_xdp_get_buff_len(ctx);
    __u32 captured = length < MPTM_SNAP ? length : MPTM_SNAP;

    event->time = bpf_ktime_get_ns();
    event->tunnel = tunnel;
    event->ifindex = ctx->ingress_ifindex;
    event->length = length;
    event->program = program;
    event->action = verdict < 0 ? XDP_DROP : verdict;
    event->reason = verdict < 0 ? -verdict : 0;
    event->pad = 0;
    if (captured < 1 || captured > MPTM_SNAP || bpf_xdp_load_bytes(ctx, 0, event->data, captured))
        captured = 0;
    event->captured = captured;
    bpf_ringbuf_submit(event, 0);
    return 0;
}

#endif
