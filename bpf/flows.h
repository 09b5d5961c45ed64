/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What was looked up for plain packets (plain.h) is kept, and holds for as long as nothing was changed: user
 * space steps `generation` around each of its changes. In two levels: who sends, which only the long way
 * finds out, and where that sends to, which is one lookup more. So neither one flow nor a hundred thousand
 * take the long way again and again.
 *
 * The entries are each CPU's own, found by a hash, and overwritten by the next one with the same hash. All
 * CPUs share `ways` (ways.h). Nothing else runs these programs on a CPU in between: softirqs are not
 * preempted, but on PREEMPT_RT, which is not supported.
 */
#ifndef MPTM_FLOWS_H
#define MPTM_FLOWS_H

#include "maps.h"
#include "parse.h"

/* An address that a workload has. */
struct source {
    __u64 where; /* see flows_where; 0: none */
    __u64 address[2];
    __u32 table; /* in `routes`, with MPTM_TABLE_IPV6 */
    __u32 pairs; /* as in struct mptm_route */
    __u8 mac[6]; /* the interface's own */
    __u8 pad[2];
};

/* From such an address into a tunnel. */
struct flow_out {
    __u64 where;
    __u64 addresses[4]; /* as in struct plain */
    __u32 index;        /* in `tunnels` */
    __u32 id;           /* of the tunnel */
    __u32 hash;         /* of the addresses */
    __u8 mac[6];        /* the interface's own */
    __u8 pad[6];
};

#define SOURCES_BITS 8
#define FLOWS_BITS 11

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1 << SOURCES_BITS);
    __type(key, __u32);
    __type(value, struct source);
} sources SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1 << FLOWS_BITS);
    __type(key, __u32);
    __type(value, struct flow_out);
} flows_out SEC(".maps");

/* Odd while user space is at work: entries neither count nor are made then. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} generation SEC(".maps");

/* Odd: no entry counts, since none is of such a generation, and none is to be made. */
static __always_inline __u32 flows_generation(void)
{
    __u32 zero = 0;
    volatile __u32 *entry = bpf_map_lookup_elem(&generation, &zero);

    return entry ? *entry : 1;
}

/* By which device packets came in, and of which IP version they are, in one generation. */
static __always_inline __u64 flows_where(__u32 now, __u32 ifindex, int is_ipv6)
{
    return (__u64)(ifindex << 1 | is_ipv6) << 32 | now;
}

/*
 * Fibonacci hashing (Knuth, volume 3, 6.4): the upper bits of the product. Neighbours lie far apart, as long
 * as they are neighbours as numbers: hence host byte order.
 */
#define GOLDEN 0x9e3779b97f4a7c15

static __always_inline __u32 flows_slot(const __u64 *addresses, int is_ipv6, __u32 more, __u32 bits)
{
    __u64 mixed = (bpf_be64_to_cpu(addresses[0]) ^ more) * GOLDEN;

    if (is_ipv6) {
        mixed = (mixed ^ mixed >> 29 ^ addresses[1] ^ addresses[2]) * GOLDEN;
        mixed = ((mixed ^ mixed >> 29) + bpf_be64_to_cpu(addresses[3])) * GOLDEN;
    }
    return mixed >> (64 - bits);
}

static __always_inline int is_same_flow(const __u64 *a, const __u64 *b, int is_ipv6)
{
    if (!is_ipv6)
        return a[0] == b[0];
    return ((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3])) == 0;
}

static __always_inline void copy_addresses(__u64 *to, const __u64 *from, int is_ipv6)
{
    to[0] = from[0];
    if (!is_ipv6)
        return;
    to[1] = from[1];
    to[2] = from[2];
    to[3] = from[3];
}

/* The second half of an IPv4 address's mapped form, whose first half is zero. */
static __always_inline __u64 mapped_low(__be32 address)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return (__u64)address << 32 | bpf_htonl(0xffff);
#else
    return (__u64)bpf_htonl(0xffff) << 32 | address;
#endif
}

#endif
