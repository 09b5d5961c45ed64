/* SPDX-License-Identifier: GPL-2.0-only */
/* Flooding, as far as tc goes: copies of the frames that XDP has left a note with. */
#ifndef MPTM_COPIES_H
#define MPTM_COPIES_H

#include <linux/pkt_cls.h> /* TC_ACT_UNSPEC is TCX_NEXT */

#include "bounds.h"
#include "encap.h"
#include "flood.h"
#include "maps.h"
#include "parse.h"
#include "route.h"
#include "stats.h"

/* On a copy that came back to its own interface to be wrapped up. It says which half of the work is to be
 * done, not that there is any: that, only the note says. */
#define FLOOD_MARK 0x6d70746d /* "mptm" */

struct copy_walk {
    struct __sk_buff *skb;
    const struct mptm_flood *flood;
    struct inner inner;
    __u32 table;
    __u32 ifindex; /* where the frame came in */
    __u32 length;  /* of the frame */
    __u32 hash;
    __u32 sum;
    __u32 pushed;  /* bytes before the frame by now */
    __u32 pending; /* where what is there by now has still to be sent; 0: nowhere */
    __u8 macs[2 * ETH_ALEN];
    __u8 own_mac[ETH_ALEN];
    __u8 pad[2];
};

/* An outer header in the making. Nothing is written to the packet directly: a program that does that is
 * handed frames that somebody else looks at, too (tcpdump), without their metadata. */
struct header_buffer {
    __u8 bytes[MPTM_MAX_HEADER + 16];
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct header_buffer);
} header_buffers SEC(".maps");

static __always_inline void count_missed(__u32 reason, __u32 length)
{
    struct mptm_counter *counter = bpf_map_lookup_elem(&drops, &reason);

    if (counter)
        count(counter, length);
}

static __always_inline void count_action(__u32 action, __u32 length)
{
    __u32 row = MPTM_PROGRAM_FLOOD * MPTM_ACTIONS + action;
    struct mptm_counter *counter = bpf_map_lookup_elem(&actions, &row);

    if (counter)
        count(counter, length);
}

/* As `tell` does, of the copy for a tunnel as it is now. */
static __noinline void tell_copy(struct __sk_buff *skb, __u32 tunnel, int verdict)
{
    struct mptm_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

    if (!event)
        return;
    __u32 captured = skb->len < MPTM_SNAP ? skb->len : MPTM_SNAP;

    describe(event, tunnel, skb->ifindex, skb->len, MPTM_PROGRAM_FLOOD, verdict);
    if (captured < 1 || captured > MPTM_SNAP || bpf_skb_load_bytes(skb, 0, event->data, captured))
        captured = 0;
    event->captured = captured;
    bpf_ringbuf_submit(event, 0);
}

static __always_inline void send_copy(struct copy_walk *walk, __u32 ifindex, __u64 flags)
{
    if (bpf_clone_redirect(walk->skb, ifindex, flags)) {
        count_missed(MPTM_DROP_NOT_FLOODED, walk->length);
        count_action(XDP_DROP, walk->length);
    } else {
        count_action(XDP_REDIRECT, walk->length);
    }
}

/* Sends what is pending. The last one needs no copy: `finish_copies` sends the frame itself. */
static __always_inline void send_pending(struct copy_walk *walk)
{
    if (walk->pending)
        send_copy(walk, walk->pending, 0);
    walk->pending = 0;
}

static __always_inline int finish_copies(struct copy_walk *walk)
{
    if (!walk->pending)
        return TC_ACT_SHOT;
    count_action(XDP_REDIRECT, walk->length);
    return bpf_redirect(walk->pending, 0);
}

/* A copy for a workload, if it is one of the segment and not who sent it. */
static int copy_to_workload(__u32 index, struct copy_walk *walk)
{
    __u32 at = walk->flood->tunnels + index;

    if (at >= MPTM_MAX_FLOOD_MEMBERS)
        return 1;
    __u32 ifindex = walk->flood->members[at].ifindex;
    struct mptm_interface *to = bpf_map_lookup_elem(&interfaces, &ifindex);

    if (!to || ifindex == walk->ifindex || to->role != MPTM_ROLE_WORKLOAD || to->table != walk->table)
        return 0;
    send_pending(walk);
    walk->pending = ifindex;
    return 0;
}

/* Fills in the outer header in the buffer. */
static __always_inline int make_header(struct copy_walk *walk, const struct mptm_tunnel *tunnel, __u32 id,
                                       __u32 grow, struct header_buffer *buffer)
{
    struct patch patch = {.outer = walk->length + grow, .hash = walk->hash, .payload = walk->sum};
    int error;

    __builtin_memcpy(buffer->bytes, tunnel->header, sizeof(tunnel->header));
    if (tunnel->flags & MPTM_TUNNEL_SEQUENCE) {
        struct mptm_tunnel_state *state = bpf_map_lookup_elem(&tunnel_state, &id);

        if (state)
            patch.sequence = __sync_fetch_and_add(&state->sent, 1);
    }
    inherit(&patch, tunnel, &walk->inner);
    error = patch_header(buffer->bytes, buffer->bytes + sizeof(buffer->bytes), tunnel, &walk->inner, &patch);
    if (error)
        return REASON_OF(error);
    if (tunnel->flags & MPTM_TUNNEL_KEEP_DESTINATION)
        __builtin_memcpy(buffer->bytes, walk->macs, ETH_ALEN);
    else if (tunnel->flags & MPTM_TUNNEL_STACK)
        __builtin_memcpy(buffer->bytes, walk->own_mac, ETH_ALEN);
    if (tunnel->flags & MPTM_TUNNEL_KEEP_SOURCE)
        __builtin_memcpy(buffer->bytes + ETH_ALEN, walk->macs + ETH_ALEN, ETH_ALEN);
    return 0;
}

/* Wraps the frame up for a tunnel; what it was wrapped up in before is shorter, and is overwritten. Returns
 * an enum mptm_reason: why that can't be, or none. */
static __always_inline __u32 wrap(struct copy_walk *walk, const struct mptm_tunnel *tunnel, __u32 id)
{
    struct __sk_buff *skb = walk->skb;
    __u32 size = tunnel->header_len;
    __u32 grow = size - tunnel->pop;
    __u32 zero = 0, reason;
    struct header_buffer *buffer = bpf_map_lookup_elem(&header_buffers, &zero);

    if (walk->length - ETH_HLEN > tunnel->mtu)
        return MPTM_DROP_FLOOD_TOO_BIG;
    if (tunnel->flags & MPTM_TUNNEL_UNRESOLVED)
        return MPTM_DROP_NO_NEIGHBOUR;
    if (!buffer || size < 1 || size > MPTM_MAX_HEADER)
        return MPTM_DROP_NO_TUNNEL;
    if (grow < walk->pushed || grow > MPTM_MAX_HEADER)
        return MPTM_DROP_NOT_FLOODED;
    reason = make_header(walk, tunnel, id, grow, buffer);
    if (reason)
        return reason;
    send_pending(walk);
    if (grow > walk->pushed && bpf_skb_change_head(skb, grow - walk->pushed, 0))
        return MPTM_DROP_NO_ROOM;
    walk->pushed = grow;
    /* Checked above; but a compiler may have let the verifier forget it since. */
    size = within(size, 1, MPTM_MAX_HEADER);
    if (!size)
        return MPTM_DROP_NO_TUNNEL;
    /* A VLAN tag before this one has moved the frame's own. */
    if (bpf_skb_store_bytes(skb, grow, walk->macs, sizeof(walk->macs), BPF_F_RECOMPUTE_CSUM) ||
        bpf_skb_store_bytes(skb, 0, buffer->bytes, size, BPF_F_RECOMPUTE_CSUM))
        return MPTM_DROP_NO_ROOM;
    return 0;
}

/* A copy for a tunnel, if it is one of the segment. */
static int copy_to_tunnel(__u32 index, struct copy_walk *walk)
{
    if (index >= MPTM_MAX_FLOOD_MEMBERS)
        return 1;
    __u32 id = walk->flood->members[index].id;
    __u32 ifindex = walk->flood->members[index].ifindex;
    struct mptm_tunnel *tunnel = tunnel_find(id);

    if (!tunnel || tunnel->table != walk->table || !(tunnel->flags & MPTM_TUNNEL_FLOOD) ||
        tunnel->flags & MPTM_TUNNEL_IP_PAYLOAD)
        return 0;
    __u32 reason = wrap(walk, tunnel, id);

    if (tunnel->flags & MPTM_TUNNEL_DEBUG)
        tell_copy(walk->skb, id, reason ? DROP(reason) : XDP_REDIRECT);
    if (reason) {
        count_missed(reason, walk->length);
        count_action(XDP_DROP, walk->length);
        return 0;
    }
    struct mptm_tunnel_stats *stats = bpf_map_lookup_elem(&tunnel_stats, &id);

    if (stats)
        count(&stats->encap, walk->length);
    if (tunnel->flags & MPTM_TUNNEL_STACK)
        send_copy(walk, walk->ifindex, BPF_F_INGRESS);
    else
        walk->pending = ifindex;
    return 0;
}

static __always_inline int is_note(const struct __sk_buff *skb, const struct flood_note *note)
{
    return note->ifindex == skb->ifindex && note->instance == flood_instance();
}

/* Reads the note of a frame, and sees to it that the frame begins with its Ethernet header: flood.h has why
 * it may not. */
static __always_inline int read_note(struct __sk_buff *skb, struct flood_note *note)
{
    void *at = (void *)(long)skb->data_meta;
    void *end = (void *)(long)skb->data;
    struct ethhdr eth;

    if (at + FLOOD_SLACK + sizeof(*note) > end) {
        if (at + sizeof(*note) > end)
            return 0;
        __builtin_memcpy(note, at, sizeof(*note));
        return is_note(skb, note);
    }
    __builtin_memcpy(note, at + FLOOD_SLACK, sizeof(*note));
    if (is_note(skb, note))
        return 1;
    __builtin_memcpy(note, at + FLOOD_SLACK - sizeof(eth), sizeof(*note));
    if (!is_note(skb, note))
        return 0;
    __builtin_memcpy(&eth, at + FLOOD_SLACK - sizeof(eth) + sizeof(*note), sizeof(eth));
    return !bpf_skb_change_head(skb, sizeof(eth), 0) && !bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0);
}

/* The kernel has taken VLAN tags out of the frame: they are put back, `bytes` of them. Returns whether that
 * makes it what XDP saw. */
static __always_inline int put_tags(struct __sk_buff *skb, const __u8 *macs, __u32 bytes)
{
    struct {
        __u8 macs[2 * ETH_ALEN];
        __be16 tags[2 * VLAN_TAGS];
    } front;
    __u32 found = 0;

    __builtin_memcpy(front.macs, macs, sizeof(front.macs));
#pragma clang loop unroll(full)
    for (int i = 0; i < VLAN_TAGS; i++) {
        if (!skb->vlan_present)
            break;
        front.tags[2 * i] = skb->vlan_proto;
        front.tags[2 * i + 1] = bpf_htons(skb->vlan_tci);
        found += sizeof(struct vlan_tag);
        /* What was behind it takes its place. */
        if (bpf_skb_vlan_pop(skb))
            return 0;
    }
    if (found != bytes || skb->vlan_present)
        return 0;
    if (!found)
        return 1;
    return !bpf_skb_change_head(skb, found, 0) &&
           !bpf_skb_store_bytes(skb, 0, &front, sizeof(front.macs) + found, BPF_F_RECOMPUTE_CSUM);
}

/* To all tunnels of the segment: the frame is a copy, and is used up. */
static __noinline int flood_tunnels(struct __sk_buff *skb, struct copy_walk *walk,
                                    const struct flood_note *note)
{
    /* Both should not be: GRO leaves alone what has a note, and before it there are no large packets. */
    if (skb->gso_size || !put_tags(skb, walk->macs, note->tags)) {
        count_missed(MPTM_DROP_NOT_FLOODED, walk->length);
        return TC_ACT_SHOT;
    }
    walk->length = skb->len;
    walk->hash = note->id;
    walk->sum = note->word;
    walk->inner.label = note->label;
    walk->inner.kind = note->kind;
    walk->inner.flags = note->flags;
    walk->inner.ttl = note->ttl;
    walk->inner.tos = note->tos;
    walk->inner.pcp = note->pcp;
    skb->mark = 0;
    bpf_set_hash_invalid(skb);
    bpf_loop(walk->flood->tunnels, copy_to_tunnel, walk, 0);
    return finish_copies(walk);
}

/* From a workload: the others of the segment get copies at once, and one comes back to be wrapped up. The
 * frame itself goes on to the host's stack. */
static __noinline int flood_from_workload(struct __sk_buff *skb, struct copy_walk *walk)
{
    __u32 mark = skb->mark;

    /* First, since the frame may lose its note when it is copied. */
    skb->mark = FLOOD_MARK;
    if (bpf_clone_redirect(skb, walk->ifindex, BPF_F_INGRESS))
        count_missed(MPTM_DROP_NOT_FLOODED, walk->length);
    skb->mark = mark;
    bpf_loop(walk->flood->workloads, copy_to_workload, walk, 0);
    send_pending(walk);
    return TC_ACT_UNSPEC;
}

/* From a tunnel: to the workloads of its segment, and nobody else. */
static __noinline int flood_from_tunnel(struct __sk_buff *skb, struct copy_walk *walk,
                                        const struct flood_note *note)
{
    /* What the network card has said of the outer packet says nothing of this one. */
    bpf_csum_level(skb, BPF_CSUM_LEVEL_RESET);
    if ((skb->vlan_present && bpf_skb_vlan_pop(skb)) ||
        bpf_skb_store_bytes(skb, 2 * ETH_ALEN, &note->word, sizeof(note->word), BPF_F_RECOMPUTE_CSUM)) {
        count_missed(MPTM_DROP_NOT_FLOODED, walk->length);
        return TC_ACT_SHOT;
    }
    bpf_set_hash_invalid(skb);
    bpf_loop(walk->flood->workloads, copy_to_workload, walk, 0);
    return finish_copies(walk);
}

static __always_inline int flood(struct __sk_buff *skb)
{
    struct copy_walk walk = {.skb = skb};
    struct mptm_interface *interface;
    struct flood_note note;

    if (!read_note(skb, &note))
        return TC_ACT_UNSPEC;
    walk.ifindex = note.ifindex;
    walk.length = skb->len;
    interface = bpf_map_lookup_elem(&interfaces, &walk.ifindex);
    if (!interface)
        return TC_ACT_UNSPEC;
    int is_workload = interface->role == MPTM_ROLE_WORKLOAD;

    walk.table = interface->table;
    __builtin_memcpy(walk.own_mac, interface->mac, sizeof(walk.own_mac));
    if (!is_workload) {
        struct mptm_tunnel *tunnel = tunnel_find(note.id);

        if (!tunnel)
            return TC_ACT_SHOT;
        walk.table = tunnel->table;
    }
    walk.flood = bpf_map_lookup_elem(&floods, &walk.table);
    if (!walk.flood)
        return is_workload && skb->mark != FLOOD_MARK ? TC_ACT_UNSPEC : TC_ACT_SHOT;
    if (!is_workload)
        return flood_from_tunnel(skb, &walk, &note);
    if (bpf_skb_load_bytes(skb, 0, walk.macs, sizeof(walk.macs)))
        return TC_ACT_UNSPEC;
    return skb->mark == FLOOD_MARK ? flood_tunnels(skb, &walk, &note) : flood_from_workload(skb, &walk);
}

#endif
