/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Flooding, as far as XDP goes: it finds out what may be flooded, and leaves a note for mptm_flood. Copies
 * with different headers are beyond XDP: a redirection to many devices sends the same frame to each, and a
 * program on the way out of them (in a devmap) is that of a bulk's first frame for all of the bulk.
 */
#ifndef MPTM_FLOOD_H
#define MPTM_FLOOD_H

#include "csum.h"
#include "encap.h"
#include "maps.h"
#include "parse.h"
#include "route.h"
#include "stats.h"

/*
 * Metadata of a frame on its way from XDP to tc, directly before it; 32 bytes are the most that kernels
 * before 6.9 take. Generic XDP of those from 6.9 on, when it has made a copy of a frame to have room before
 * it, lets tc begin behind the Ethernet header, and look for metadata just before that: with as much more
 * metadata, which means nothing, the note can be found all the same.
 */
struct flood_note {
    __u64 instance; /* of the data plane: metadata of another program, or another node, is none of ours */
    __u32 ifindex;  /* where the frame came in, and nowhere else, the note counts */
    __u32 nonce;    /* unlike that of any other frame's, so that GRO merges none of them */
    __u32 id;       /* underlay: of the tunnel; workload: the hash of the flow */
    __u32 label;    /* IPv6 flow label */
    __u16 word;     /* underlay: the EtherType; workload: the sum of the frame, if wanted */
    __u8 kind;      /* enum kind, and the rest as in struct inner */
    __u8 flags;
    __u8 ttl;
    __u8 tos;
    __u8 pcp;
    __u8 tags;
};
_Static_assert(sizeof(struct flood_note) == 32, "flood_note");
#define FLOOD_SLACK 16 /* no less than an Ethernet header, and a multiple of 4 */

/* Which data plane this is. */
static __always_inline __u64 flood_instance(void)
{
    __u32 zero = 0;
    struct mptm_meta *row = bpf_map_lookup_elem(&meta, &zero);

    return row ? row->netns ^ 0x6d70746d666c6f64 : 0; /* "mptmflod" */
}

/* Makes room for a note before the frame; NULL: the driver has none. Packet pointers are to be derived again.
 */
static __always_inline struct flood_note *make_note(struct xdp_md *ctx)
{
    __u32 ifindex = ctx->ingress_ifindex;
    struct mptm_interface *interface = bpf_map_lookup_elem(&interfaces, &ifindex);
    int is_native = interface && interface->flags & MPTM_INTERFACE_CPUS;
    struct flood_note *note;
    __u64 instance = flood_instance();

    if (is_native || bpf_xdp_adjust_meta(ctx, -(int)(FLOOD_SLACK + sizeof(*note)))) {
        if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*note)))
            return NULL;
        note = (void *)(long)ctx->data_meta;
    } else {
        note = (void *)(long)ctx->data_meta + FLOOD_SLACK;
    }
    if ((void *)(note + 1) > (void *)(long)ctx->data)
        return NULL;
    __builtin_memset(note, 0, sizeof(*note));
    note->instance = instance;
    note->ifindex = ifindex;
    note->nonce = bpf_get_prandom_u32();
    return note;
}

/* Of a packet for several: its kind as that of one for one. */
static __always_inline enum kind flood_kind(const struct inner *inner)
{
    return inner->flags & INNER_IPV4 ? KIND_IPV4 : KIND_IPV6;
}

/* Who has no address yet, and who asks its link only, may be anybody. */
static __always_inline int has_no_address(const struct inner *inner)
{
    const __u32 *words = (const __u32 *)inner->source;
    __u32 third = inner->flags & INNER_IPV4 ? bpf_htonl(0xffff) : 0;

    return ((words[0] | words[1] | words[3]) == 0 && words[2] == third) || is_link_local(inner->source);
}

#define FLOOD_YES (1 << 0)
#define FLOOD_WITH_SUM (1 << 1)

/* Whether a packet for several is flooded: one that the workload in `slot` may send, where its segment has a
 * tunnel for it. A function of its own, as the next one is, because the stack has no room for them in one. */
__noinline int may_flood(struct inner *inner, __u32 table, __u32 slot)
{
    struct mptm_flood *flood = bpf_map_lookup_elem(&floods, &table);
    struct mptm_route own = {};

    if (!inner || !flood || !(inner->flags & INNER_FLOOD))
        return 0;
    if (!(inner->flags & INNER_IPV4))
        table |= MPTM_TABLE_IPV6;
    if (!has_no_address(inner) &&
        !(route_find(table, inner->source, &own) && own.target == MPTM_TARGET_WORKLOAD && own.id == slot))
        return 0;
    return flood->flags & MPTM_FLOOD_SUM ? FLOOD_YES | FLOOD_WITH_SUM : FLOOD_YES;
}

/* Has it copied to all of the segment; it goes on to the host's stack as it is. */
__noinline int note_outgoing(struct xdp_md *ctx, struct inner *inner, __u32 sum)
{
    struct flood_note *note;

    if (!inner)
        return XDP_PASS;
    __u32 hash = flow_hash(inner);

    note = make_note(ctx);
    if (!note)
        return LEAVE(MPTM_DROP_NOT_FLOODED);
    note->id = hash;
    note->label = inner->label;
    note->word = csum_reduce(sum);
    note->kind = inner->kind;
    note->flags = inner->flags;
    note->ttl = inner->ttl;
    note->tos = inner->tos;
    note->pcp = inner->pcp;
    note->tags = inner->tags;
    return XDP_PASS;
}

/* A workload's packet for several. */
static __always_inline int flood_out(struct xdp_md *ctx, struct inner *inner, __u32 table, __u32 slot,
                                     __u32 length)
{
    int may = may_flood(inner, table, slot);

    if (!may)
        return LEAVE(MPTM_DROP_GROUP);
    inner->kind = flood_kind(inner);
    return note_outgoing(ctx, inner, may & FLOOD_WITH_SUM ? csum_inner(ctx, inner, 0, length) : 0);
}

/* Whether a tunnel may bring in a packet for several. Returns 0, or a drop. */
static __always_inline int check_group(const struct mptm_tunnel *tunnel, __u32 id, const struct inner *inner)
{
    __u32 table = tunnel->table;
    struct mptm_route back;

    if (!(tunnel->flags & MPTM_TUNNEL_FLOOD) || !(inner->flags & INNER_FLOOD) ||
        !bpf_map_lookup_elem(&floods, &table))
        return DROP(MPTM_DROP_INNER_GROUP);
    if (!(inner->flags & INNER_IPV4))
        table |= MPTM_TABLE_IPV6;
    if (!has_no_address(inner) &&
        !(route_find(table, inner->source, &back) && back.target == MPTM_TARGET_TUNNEL && back.id == id))
        return DROP(MPTM_DROP_INNER_SOURCE);
    return 0;
}

/*
 * A frame for several that came out of tunnel `id`: to the workloads of its segment. It is for mptm_flood
 * only, and must not be taken for the host's if that is not there: so on its way it is of a protocol that
 * nobody speaks.
 */
__noinline int flood_in(struct xdp_md *ctx, __u32 id)
{
    __be16 type, sealed = bpf_htons(ETH_P_802_EX1);
    struct flood_note *note;

    if (bpf_xdp_load_bytes(ctx, 2 * ETH_ALEN, &type, sizeof(type)) ||
        bpf_xdp_store_bytes(ctx, 2 * ETH_ALEN, &sealed, sizeof(sealed)))
        return DROP(MPTM_DROP_NOT_FLOODED);
    note = make_note(ctx);
    if (!note)
        return DROP(MPTM_DROP_NOT_FLOODED);
    note->id = id;
    note->word = type;
    return XDP_PASS;
}

#endif
