/* SPDX-License-Identifier: GPL-2.0-only */
/* Counters and events: the one place that turns a reason into a counter and a verdict. */
#ifndef MPTM_STATS_H
#define MPTM_STATS_H

#include "maps.h"

/*
 * What the packet path returns: an XDP action, and why, if it is not simply on its way. 0 is none of them: go
 * on.
 */
#define VERDICT(action, reason) ((action) | (reason) << 8)
#define DROP(reason) VERDICT(XDP_DROP, reason)
/* To the host's stack, as no tunnel's. */
#define LEAVE(reason) VERDICT(XDP_PASS, reason)
/* Back to the sender, with an answer: see send_back. */
#define ANSWER(reason) VERDICT(XDP_TX, reason)
#define ACTION_OF(verdict) ((verdict) & (MPTM_ACTIONS - 1))
#define REASON_OF(verdict) ((verdict) >> 8)

static __always_inline void count(struct mptm_counter *counter, __u32 bytes)
{
    counter->packets++;
    counter->bytes += bytes;
}

static __always_inline int finish(enum mptm_program program, int verdict, __u32 length)
{
    __u32 action = ACTION_OF(verdict);
    __u32 reason = REASON_OF(verdict);
    struct mptm_counter *counter;

    if (reason) {
        counter = bpf_map_lookup_elem(&drops, &reason);
        if (counter)
            count(counter, length);
    }
    __u32 row = program * MPTM_ACTIONS + action;

    counter = bpf_map_lookup_elem(&actions, &row);
    if (counter)
        count(counter, length);
    return action;
}

static __always_inline void describe(struct mptm_event *event, __u32 tunnel, __u32 ifindex, __u32 length,
                                     __u32 program, int verdict)
{
    event->time = bpf_ktime_get_ns();
    event->tunnel = tunnel;
    event->ifindex = ifindex;
    event->length = length;
    event->program = program;
    event->action = ACTION_OF(verdict);
    event->reason = REASON_OF(verdict);
    event->pad = 0;
}

/* Tells `events` about a packet of a tunnel with `debug = true`, as it looks now. */
__noinline int tell(struct xdp_md *ctx, __u32 tunnel, __u32 program, int verdict)
{
    struct mptm_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

    if (!event)
        return 0;
    __u32 length = bpf_xdp_get_buff_len(ctx);
    __u32 captured = length < MPTM_SNAP ? length : MPTM_SNAP;

    describe(event, tunnel, ctx->ingress_ifindex, length, program, verdict);
    if (captured < 1 || captured > MPTM_SNAP || bpf_xdp_load_bytes(ctx, 0, event->data, captured))
        captured = 0;
    event->captured = captured;
    bpf_ringbuf_submit(event, 0);
    return 0;
}

#endif
