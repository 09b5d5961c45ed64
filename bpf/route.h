/* SPDX-License-Identifier: GPL-2.0-only */
/* The lookups: who owns an address, and which tunnel a packet takes. Nothing here knows of xdp_md. */
#ifndef MPTM_ROUTE_H
#define MPTM_ROUTE_H

#include "maps.h"
#include "parse.h"
#include "stats.h"

#define ADDRESS_BITS 128
#define TABLE_BITS 32

/* IPv6 addresses have tables of their own. */
static __always_inline __u32 table_for(__u32 table, const struct inner *inner)
{
    int is_ipv4 = inner->kind == KIND_IPV4 || inner->kind == KIND_ARP;

    return is_ipv4 ? table : table | MPTM_TABLE_IPV6;
}

/*
 * The most specific route for an address; a trie lookup only where there is no host route. Returns whether
 * there is one. It is copied because a deleted element's memory may hold another key's route while this
 * packet is on its way.
 */
static __always_inline int route_find(__u32 table, const __u8 *address, struct mptm_route *found)
{
    struct mptm_prefix_key key;

    key.prefix_len = TABLE_BITS + ADDRESS_BITS;
    key.table = table;
    __builtin_memcpy(key.address, address, sizeof(key.address));

    /* A route key is the tail of a prefix key. */
    struct mptm_route *route = bpf_map_lookup_elem(&routes, &key.table);

    if (!route)
        route = bpf_map_lookup_elem(&prefixes, &key);
    if (!route)
        return 0;
    *found = *route;
    return found->target != MPTM_TARGET_NONE;
}

/* The way from a local address to a remote one: first the local address's own `pairs`, if any, then the
 * segment. */
static __always_inline int route_between(__u32 pairs, __u32 table, const __u8 *remote,
                                         struct mptm_route *found)
{
    return (pairs && route_find(pairs | (table & MPTM_TABLE_IPV6), remote, found)) ||
           route_find(table, remote, found);
}

/*
 * Link-local addresses are in no file, but hosts use them as sources of the neighbour solicitations by which
 * they see whether a neighbour is still there (RFC 4861, 7.2.2): the answers must find their way back. So
 * where such a solicitation came from is remembered, for a while.
 */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 4096);
    __type(key, struct mptm_route_key);
    __type(value, struct mptm_route);
} link_locals SEC(".maps");

static __always_inline void link_local_key(struct mptm_route_key *key, __u32 table, const __u8 *address)
{
    key->table = table;
    __builtin_memcpy(key->address, address, sizeof(key->address));
}

static __noinline void link_local_learn(__u32 table, const struct inner *inner, const struct mptm_route *from)
{
    struct mptm_route_key key;

    link_local_key(&key, table, inner->source);
    bpf_map_update_elem(&link_locals, &key, from, BPF_ANY);
}

static __noinline int link_local_find(__u32 table, const __u8 *address, struct mptm_route *found)
{
    struct mptm_route_key key;

    link_local_key(&key, table, address);
    struct mptm_route *route = bpf_map_lookup_elem(&link_locals, &key);

    if (!route)
        return 0;
    *found = *route;
    return 1;
}

#define NO_TUNNEL ((__u32)-1)

/* Which entry of `tunnels` a tunnel has now. */
static __always_inline __u32 tunnel_index(__u32 id)
{
    /* Read once: user space may change it between two looks, and 0 would make it another tunnel's. */
    volatile __u32 *entry = bpf_map_lookup_elem(&active, &id);
    __u32 in_use = entry ? *entry : 0;

    return in_use ? 2 * id + in_use - 1 : NO_TUNNEL;
}

static __always_inline struct mptm_tunnel *tunnel_find(__u32 id)
{
    __u32 index = tunnel_index(id);

    return bpf_map_lookup_elem(&tunnels, &index);
}

static __always_inline int redirect_to(__u32 slot)
{
    return bpf_redirect_map(&devices, slot, XDP_DROP) == XDP_REDIRECT ? XDP_REDIRECT
                                                                      : DROP(MPTM_DROP_NO_DEVICE);
}

/*
 * Sends what a frame was made into back out of the interface in `slot`, that it came in by. XDP_TX would
 * leave it in the queue of a veth whose other end has no XDP program, until something else comes by: that end
 * is only woken up if it has one.
 */
static __always_inline int send_back(int verdict, __u32 slot)
{
    if (ACTION_OF(verdict) != XDP_TX)
        return verdict;
    int sent = redirect_to(slot);

    return REASON_OF(sent) ? sent : VERDICT(ACTION_OF(sent), REASON_OF(verdict));
}

#endif
