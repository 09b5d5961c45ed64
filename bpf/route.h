/* SPDX-License-Identifier: GPL-2.0-only */
/* The lookups: who owns an address, and which tunnel a packet takes. Nothing here knows of xdp_md. */
#ifndef MPTM_ROUTE_H
#define MPTM_ROUTE_H

#include "maps.h"
#include "parse.h"
#include "stats.h"

#define ADDRESS_BITS 128
#define TABLE_BITS 32

/* The most specific route for an address; a trie lookup only where there is no host route. */
static __always_inline struct mptm_route *route_find(__u32 table, const __u8 *address) {
    struct mptm_prefix_key key;

    key.prefix_len = TABLE_BITS + ADDRESS_BITS;
    key.table = table;
    __builtin_memcpy(key.address, address, sizeof(key.address));

    /* A route key is the tail of a prefix key. */
    struct mptm_route *route = bpf_map_lookup_elem(&routes, &key.table);

    if (!route)
        route = bpf_map_lookup_elem(&prefixes, &key);
    return route && route->target != MPTM_TARGET_NONE ? route : NULL;
}

/* The way from a local address to a remote one: first the local address's own pairs, then the segment. */
static __always_inline struct mptm_route *route_between(const struct mptm_route *local, __u32 table,
                                                        const __u8 *remote) {
    struct mptm_route *route = NULL;

    if (local && local->pairs)
        route = route_find(local->pairs, remote);
    return route ? route : route_find(table, remote);
}

static __always_inline struct mptm_tunnel *tunnel_find(__u32 id) {
    __u32 *active_entry = bpf_map_lookup_elem(&active, &id);

    if (!active_entry || !*active_entry)
        return NULL;
    __u32 index = 2 * id + *active_entry - 1;

    return bpf_map_lookup_elem(&tunnels, &index);
}

static __always_inline int same_address(const __u8 *a, const __u8 *b) {
    const __u64 *left = (const __u64 *)a, *right = (const __u64 *)b;

    return left[0] == right[0] && left[1] == right[1];
}

/* 0.0.0.0, the sender of an ARP probe (RFC 5227). */
static __always_inline int is_unspecified(const __u8 *address) {
    return ((const __u32 *)address)[3] == 0;
}

static __always_inline int redirect_to(__u32 slot) {
    return bpf_redirect_map(&devices, slot, XDP_DROP) == XDP_REDIRECT ? XDP_REDIRECT
                                                                      : DROP(MPTM_DROP_NO_DEVICE);
}

/* Writes the workload's MAC address over the frame's destination, unless that is a group or there is none to
 * write. */
static __always_inline void set_destination(__u8 *frame, const __u8 *mac) {
    if (frame[0] & 1)
        return;
    if (mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5])
        __builtin_memcpy(frame, mac, ETH_ALEN);
}

#endif
