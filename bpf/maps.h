/* SPDX-License-Identifier: GPL-2.0-only */
/* The maps: all are pinned and outlive mptm; user space fills them, the programs only read, but for the
 * counters. */
#ifndef MPTM_MAPS_H
#define MPTM_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

/* User space sets the size before it loads the object: see src/kernel/sizes.rs. */
#define MPTM_BY_FILE 1
/* A trie takes memory only as it fills, whatever its size is. BTF can't tell of a larger one. */
#define MPTM_NO_LIMIT (1 << 29)

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, MPTM_BY_FILE);
    __type(key, __u32); /* ifindex */
    __type(value, struct mptm_interface);
} interfaces SEC(".maps");

/* By slot: what a packet that leaves by an interface needs. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, MPTM_BY_FILE);
    __type(key, __u32);
    __type(value, struct mptm_slot);
} slots SEC(".maps");

/* Where packets can be redirected to, by interface slot. */
struct {
    __uint(type, BPF_MAP_TYPE_DEVMAP);
    __uint(max_entries, MPTM_BY_FILE);
    __type(key, __u32);
    __type(value, __u32); /* ifindex */
} devices SEC(".maps");

/*
 * By CPU: hands outer packets to the host's stack. Filled only while a tunnel has redirect = false, since
 * each entry has a kernel thread. User space sets the size: as many as the machine may have.
 */
struct {
    __uint(type, BPF_MAP_TYPE_CPUMAP);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32); /* frames that may wait */
} cpus SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, MPTM_BY_FILE);
    __type(key, struct mptm_route_key);
    __type(value, struct mptm_route);
} routes SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, MPTM_NO_LIMIT);
    __type(key, struct mptm_prefix_key);
    __type(value, struct mptm_route);
} prefixes SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, MPTM_BY_FILE);
    __type(key, struct mptm_endpoint);
    __type(value, __u32); /* tunnel id */
} endpoints SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct mptm_udp_ports);
} udp_ports SEC(".maps");

/* By tunnel id: 0 no such tunnel, 1 or 2 which of its two entries in `tunnels` is in use. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, MPTM_BY_FILE);
    __type(key, __u32);
    __type(value, __u32);
} active SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, MPTM_BY_FILE);
    __type(key, __u32);
    __type(value, struct mptm_tunnel);
} tunnels SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, MPTM_BY_FILE);
    __type(key, __u32); /* table */
    __type(value, struct mptm_flood);
} floods SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, MPTM_BY_FILE);
    __type(key, __u32); /* tunnel id */
    __type(value, struct mptm_tunnel_state);
} tunnel_state SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, MPTM_BY_FILE);
    __type(key, __u32); /* tunnel id */
    __type(value, struct mptm_tunnel_stats);
} tunnel_stats SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, MPTM_PROGRAM_COUNT *MPTM_ACTIONS);
    __type(key, __u32); /* program * MPTM_ACTIONS + action */
    __type(value, struct mptm_counter);
} actions SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, MPTM_DROP_COUNT);
    __type(key, __u32); /* enum mptm_reason */
    __type(value, struct mptm_counter);
} drops SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 256 * 1024);
} events SEC(".maps");

/* The rest is for user space alone. */

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, MPTM_BY_FILE);
    __type(key, struct mptm_name_key);
    __type(value, struct mptm_name);
} names SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, MPTM_BY_FILE);
    __type(key, struct mptm_saved_key);
    __type(value, struct mptm_saved);
} saved SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct mptm_meta);
} meta SEC(".maps");

#endif
