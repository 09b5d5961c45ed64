/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the packet bench measures against, and how it feeds programs. Test runs of live frames use the same
 * few pages again and again, without mending what a program did to them. So each run starts with `start`,
 * which writes the beginning of the frame anew and goes on to the program that is measured: the same for all
 * rows.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

/* Up to behind the inner IP header of the longest outer one. */
#define HEAD 64
#define MORE 32

/* How a frame begins, and where in it an IPv4 address varies. */
struct frame {
    __u8 head[HEAD + MORE];
    __u32 size;    /* of the frame */
    __u32 at;      /* of the address, in bytes; 0: nothing varies */
    __u32 first;   /* the first address, in host byte order */
    __u32 count;   /* how many addresses */
    __u32 shift;   /* and how far they are apart, as a power of two */
    __u32 random;  /* where the random numbers are */
    __u64 written; /* frames, so far */
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct frame);
} frames SEC(".maps");

/* The program that is measured. */
struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} measured SEC(".maps");

/* Where the floors' frames go. */
struct {
    __uint(type, BPF_MAP_TYPE_DEVMAP);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} out SEC(".maps");

/* Xorshift (Marsaglia, 2003): not to be guessed by a branch predictor or a prefetcher. */
static __always_inline void vary(void *data, void *end, struct frame *frame)
{
    __u32 random = frame->random, at = frame->at;
    __be32 *address = data + at;

    random ^= random << 13;
    random ^= random >> 17;
    random ^= random << 5;
    frame->random = random;
    if (at < HEAD + MORE && (void *)(address + 1) <= end)
        *address = bpf_htonl(frame->first + (((__u64)random * frame->count >> 32) << frame->shift));
}

SEC("xdp.frags")
int start(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    __u32 zero = 0;
    struct frame *frame = bpf_map_lookup_elem(&frames, &zero);

    if (!frame || data + HEAD > end)
        return XDP_ABORTED;
    __builtin_memcpy(data, frame->head, HEAD);
    if (data + HEAD + MORE <= end)
        __builtin_memcpy(data + HEAD, frame->head + HEAD, MORE);
    if (frame->at)
        vary(data, end, frame);
    /* A locked instruction waits until what was written is in the cache, as any frame is that a device
     * brings. */
    __sync_fetch_and_add(&frame->written, 1);
    bpf_tail_call(ctx, &measured, 0);
    return XDP_ABORTED;
}

SEC("xdp.frags")
int redirect_only(struct xdp_md *ctx)
{
    return bpf_redirect_map(&out, 0, XDP_DROP);
}

/* What a GENEVE header over IPv4 takes. */
#define GROW 50

SEC("xdp.frags")
int grow_and_redirect(struct xdp_md *ctx)
{
    if (bpf_xdp_adjust_head(ctx, -GROW))
        return XDP_DROP;
    return bpf_redirect_map(&out, 0, XDP_DROP);
}

/* What somebody would write by hand who needs GENEVE over IPv4 and nothing else: no source check, no counters
 * per tunnel, no flow hash, no segments, no IPv6. */
struct header {
    __u8 bytes[GROW];
    __u16 pad;
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1024);
    __type(key, __u32);
    __type(value, struct header);
} headers SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} count SEC(".maps");

SEC("xdp.frags")
int geneve_by_hand(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = data;
    struct iphdr *ip = data + ETH_HLEN;
    __u32 length = end - data, zero = 0, sum = 0;
    struct header *header;
    __u64 *packets;

    if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
        return XDP_PASS;
    __u32 destination = ip->daddr;

    header = bpf_map_lookup_elem(&headers, &destination);
    if (!header)
        return XDP_PASS;
    if (bpf_xdp_adjust_head(ctx, -GROW))
        return XDP_DROP;
    data = (void *)(long)ctx->data;
    end = (void *)(long)ctx->data_end;
    if (data + GROW > end)
        return XDP_DROP;
    __builtin_memcpy(data, header->bytes, GROW);
    ip = data + ETH_HLEN;
    ip->tot_len = bpf_htons(length + GROW - ETH_HLEN);
    sum = ip->check + ip->tot_len;
    sum = (sum & 0xffff) + (sum >> 16);
    ip->check = ~((sum & 0xffff) + (sum >> 16));
    ((struct udphdr *)(ip + 1))->len = bpf_htons(length + GROW - ETH_HLEN - sizeof(*ip));
    packets = bpf_map_lookup_elem(&count, &zero);
    if (packets)
        (*packets)++;
    return bpf_redirect_map(&out, 0, XDP_DROP);
}

/* The far ends. */
SEC("xdp.frags")
int drop(struct xdp_md *ctx)
{
    return XDP_DROP;
}
