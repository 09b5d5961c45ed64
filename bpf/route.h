/* SPDX-License-Identifier: GPL-2.0-only */
/* The lookups: who owns an address, and which tunnel a packet takes. Nothing here knows of xdp_md. */
#ifndef MPTM_ROUTE_H
#define MPTM_ROUTE_H

#include "maps.h"
#include "parse.h"
#include "stats.h"

#define ADDRESS_BITS 128
#define TABLE_BITS 32

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
    return (pairs && route_find(pairs, remote, found)) || route_find(table, remote, found);
}

static __always_inline struct mptm_tunnel *tunnel_find(__u32 id)
{
    /* Read once: user space may change it between two looks, and 0 would make it another tunnel's. */
    volatile __u32 *entry = bpf_map_lookup_elem(&active, &id);
    __u32 in_use = entry ? *entry : 0;

    if (!in_use)
        return NULL;
    __u32 index = 2 * id + in_use - 1;

    return bpf_map_lookup_elem(&tunnels, &index);
}

/* 0.0.0.0, the sender of an ARP probe (RFC 5227), whose mapped form has a third word; and ::. */
static __always_inline int is_unspecified(const __u8 *address)
{
    const __u32 *words = (const __u32 *)address;

    return (words[0] | words[1] | words[3]) == 0;
}

static __always_inline int redirect_to(__u32 slot)
{
    return bpf_redirect_map(&devices, slot, XDP_DROP) == XDP_REDIRECT ? XDP_REDIRECT
                                                                      : DROP(MPTM_DROP_NO_DEVICE);
}

/* Writes a MAC address over the frame's destination, unless that is a group or there is none to write. */
static __always_inline void set_destination(__u8 *frame, const __u8 *mac)
{
    if (frame[0] & 1)
        return;
    if (mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5])
        __builtin_memcpy(frame, mac, ETH_ALEN);
}

#endif
