/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What was looked up for a flow is kept, and holds for as long as nothing was changed: user space steps
 * `generation` around each of its changes. Only plain packets to and from tunnels have entries; a packet
 * whose flow has none takes the long way, which makes one.
 *
 * The entries are each CPU's own, found by a hash, and overwritten by the next flow with the same one.
 */
#ifndef MPTM_FLOWS_H
#define MPTM_FLOWS_H

#include "maps.h"
#include "parse.h"

/* Addresses as in struct inner, in halves. */
struct pair {
    __u64 source[2];
    __u64 destination[2];
};

/* From a workload into a tunnel. */
struct flow_out {
    __u32 generation; /* 0: none */
    __u32 ifindex;    /* where its packets come in */
    struct pair pair;
    __u32 index; /* in `tunnels` */
    __u32 id;    /* of the tunnel */
    __u32 hash;  /* of the addresses */
    __u8 mac[6]; /* the interface's own */
    __u8 pad[6];
};

/* Out of a tunnel to a workload. */
struct flow_in {
    __u32 generation; /* 0: none */
    __u32 ifindex;
    struct pair inner;
    struct pair outer;
    __u32 id; /* as in struct mptm_endpoint, and the next two */
    __u16 port;
    __u16 protocol;
    __u32 tunnel;    /* its id */
    __u32 slot;      /* where its packets go */
    __u8 mac[6];     /* the workload's */
    __u8 own_mac[6]; /* of the interface that they leave by */
    __u8 has_mac;    /* whether the workload's is known */
    __u8 needs_sum;  /* whether outer UDP must have a checksum */
    __u8 clamps;     /* whether the MSS of SYNs is lowered */
    __u8 pad;
};

#define FLOWS_BITS 11

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1 << FLOWS_BITS);
    __type(key, __u32);
    __type(value, struct flow_out);
} flows_out SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1 << FLOWS_BITS);
    __type(key, __u32);
    __type(value, struct flow_in);
} flows_in SEC(".maps");

/* Odd while user space is at work: entries neither count nor are made then. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} generation SEC(".maps");

/* 0: no entry counts, and none is to be made. */
static __always_inline __u32 flows_generation(void)
{
    __u32 zero = 0;
    volatile __u32 *entry = bpf_map_lookup_elem(&generation, &zero);
    __u32 now = entry ? *entry : 1;

    return now & 1 ? 0 : now;
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

static __always_inline int is_same_pair(const struct pair *a, const struct pair *b)
{
    return ((a->source[0] ^ b->source[0]) | (a->source[1] ^ b->source[1]) |
            (a->destination[0] ^ b->destination[0]) | (a->destination[1] ^ b->destination[1])) == 0;
}

/* Fibonacci hashing: the upper bits are those that all others have an influence on. */
static __always_inline __u32 flows_slot(const struct pair *pair, __u32 more)
{
    __u64 mixed = (pair->source[0] ^ pair->source[1]) * 0x9e3779b97f4a7c15;

    mixed = (mixed ^ mixed >> 29 ^ pair->destination[0] ^ pair->destination[1] ^ more) * 0x9e3779b97f4a7c15;
    return mixed >> (64 - FLOWS_BITS);
}

/* Both are aligned to 8 bytes. */
static __always_inline void copy_pair(struct pair *pair, const __u8 *source, const __u8 *destination)
{
    pair->source[0] = *(const __u64 *)source;
    pair->source[1] = *(const __u64 *)(source + 8);
    pair->destination[0] = *(const __u64 *)destination;
    pair->destination[1] = *(const __u64 *)(destination + 8);
}

#endif
