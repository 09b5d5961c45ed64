/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which tunnel IPv4 addresses are behind, as the routes say: sixteen bytes each, where an entry of `routes`
 * is on several lines of cache and one of `prefixes` on dozens. So what many packets ask for stays in reach.
 *
 * All CPUs share the entries, and write them as they like: an entry's two words prove each other, so that
 * one of them that was just exchanged is no entry. They hold for one generation, as in flows.h.
 */
#ifndef MPTM_WAYS_H
#define MPTM_WAYS_H

#include "flows.h"
#include "route.h"

struct way {
    __u64 key;   /* table and address */
    __u64 value; /* generation, and tunnel id and one, xor the key's hash */
};

/* Two megabytes: more would not stay in reach. */
#define WAYS_BITS 17

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1 << WAYS_BITS);
    __type(key, __u32);
    __type(value, struct way);
} ways SEC(".maps");

static __always_inline __u32 way_find(__u64 key, __u32 now)
{
    __u64 hash = key * GOLDEN;
    __u32 slot = hash >> (64 - WAYS_BITS);

    /* Either of two places, on one line. */
#pragma clang loop unroll(full)
    for (int i = 0; i < 2; i++) {
        volatile struct way *way = bpf_map_lookup_elem(&ways, &slot);

        if (!way)
            break;
        __u64 value = way->value ^ hash;

        if (way->key == key && value >> 32 == now)
            return (__u32)value - 1;
        slot ^= 1;
    }
    return NO_TUNNEL;
}

static __always_inline void way_keep(__u64 key, __u32 now, __u32 id)
{
    __u64 hash = key * GOLDEN;
    __u32 slot = hash >> (64 - WAYS_BITS) ^ (bpf_get_prandom_u32() & 1);
    volatile struct way *way = bpf_map_lookup_elem(&ways, &slot);

    if (!way)
        return;
    way->key = key;
    way->value = ((__u64)now << 32 | (id + 1)) ^ hash;
}

/* The tunnel that a remote address is behind, if it is behind one. The arguments are route_between's. */
static __always_inline __u32 way_to(__u32 pairs, __u32 table, const __u8 *remote, __u32 now)
{
    /* Host byte order, for the sake of the hash. */
    __u64 key = (__u64)table << 32 | bpf_ntohl(*(const __be32 *)(remote + 12));
    int is_kept = !pairs && !(table & MPTM_TABLE_IPV6);
    __u32 id = is_kept ? way_find(key, now) : NO_TUNNEL;
    struct mptm_route route = {};

    if (id != NO_TUNNEL)
        return id;
    if (!route_between(pairs, table, remote, &route) || route.target != MPTM_TARGET_TUNNEL)
        return NO_TUNNEL;
    if (is_kept)
        way_keep(key, now, route.id);
    return route.id;
}

#endif
