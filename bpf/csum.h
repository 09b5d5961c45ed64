/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The Internet checksum (RFC 1071). Sums are of 16-bit words as they are in memory, whatever the byte order
 * of the machine; they are added up in 32 bits and folded when needed.
 */
#ifndef MPTM_CSUM_H
#define MPTM_CSUM_H

#include "maps.h"
#include "parse.h"

static __always_inline __u32 csum_reduce(__u32 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

static __always_inline __u16 csum_fold(__u32 sum)
{
    return ~csum_reduce(sum);
}

/* Two sums in one; neither is lost when 32 bits overflow. */
static __always_inline __u32 csum_add(__u32 a, __u32 b)
{
    __u32 sum = a + b;

    return sum + (sum < a);
}

/* Of an even number of bytes, known at compile time. */
static __always_inline __u32 csum_words(const void *from, __u32 bytes)
{
    const __u16 *words = from;
    __u32 sum = 0;

#pragma clang loop unroll(full)
    for (__u32 i = 0; i < bytes / 2; i++)
        sum += words[i];
    return sum;
}

/* Adds up 32-bit words of a packet in 64 bits; `bytes` is known at compile time, and a multiple of 4. */
static __always_inline __u64 sum_words(const void *at, __u32 bytes)
{
    const __u32 *words = at;
    __u64 sum = 0;

#pragma clang loop unroll(full)
    for (__u32 i = 0; i < bytes / 4; i++)
        sum += words[i];
    return sum;
}

/* Such a sum in 16 bits. */
static __always_inline __u32 fold_words(__u64 sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    return csum_reduce((sum & 0xffffffff) + (sum >> 32));
}

/* Whether a received header sums up. The caller has checked that its 20 bytes are there and ihl >= 5. */
static __always_inline int csum_ipv4_ok(struct iphdr *ip, void *end)
{
    const __u16 *words = (const __u16 *)ip;
    __u32 sum = csum_words(ip, sizeof(*ip));

    for (int i = sizeof(*ip) / 2; i < IPV4_MAX_HEADER / 2; i++) {
        if (i >= ip->ihl * 2)
            break;
        if ((void *)(words + i + 1) > end)
            return 0;
        sum += words[i];
    }
    return csum_fold(sum) == 0;
}

/* How much is summed up at a time, and of how many pieces the longest packet is. */
#define SUM_CHUNK 512
#define SUM_CHUNKS (65536 / SUM_CHUNK + 1)

struct sum_buffer {
    __u8 bytes[SUM_CHUNK + 8];
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct sum_buffer);
} sum_buffers SEC(".maps");

/* Small: it is on the stack below the deepest calls. */
struct sum_walk {
    struct xdp_md *ctx;
    __u32 at;
    __u32 left;
    __u32 sum;
    __u32 pad;
};

static int sum_chunk(__u32 index, struct sum_walk *walk)
{
    __u32 size = walk->left, zero = 0;
    struct sum_buffer *buffer = bpf_map_lookup_elem(&sum_buffers, &zero);

    if (!size || !buffer)
        return 1;
    if (size > SUM_CHUNK)
        size = SUM_CHUNK;
    /* What is beyond the end, to the next multiple of 4, counts as zero. */
    *(__u32 *)&buffer->bytes[size & ~3U] = 0;
    if (bpf_xdp_load_bytes(walk->ctx, walk->at, buffer->bytes, size))
        return 1;
    walk->sum = bpf_csum_diff(NULL, 0, (__be32 *)buffer->bytes, (size + 3) & ~3U, walk->sum);
    walk->at += size;
    walk->left -= size;
    return 0;
}

/* No first buffer is longer. */
#define SUM_FARTHEST 0xffff

/* A chunk that is in the first buffer, without copying it. */
static int sum_linear_chunk(__u32 index, struct sum_walk *walk)
{
    void *from = (void *)(long)walk->ctx->data;
    __u32 at = walk->at;

    if (walk->left < SUM_CHUNK || at > SUM_FARTHEST - SUM_CHUNK)
        return 1;
    from += at;
    if (from + SUM_CHUNK > (void *)(long)walk->ctx->data_end)
        return 1;
    walk->sum = bpf_csum_diff(NULL, 0, from, SUM_CHUNK, walk->sum);
    walk->at = at + SUM_CHUNK;
    walk->left -= SUM_CHUNK;
    return 0;
}

/*
 * What is in the first buffer is added up 8 bytes at a time. BPF has no carry, so what 64 bits lose must be
 * known otherwise: the words are 7 bytes apart, and each one's last byte is the next one's first. Be `even`
 * and `odd` the sums, modulo 2^64, of every other word, as numbers whose first byte is the least. Then `odd`
 * has, in its lowest 8 bits, the sum of all last bytes in `even`, and no more bits of that than these make a
 * difference at 2^56. So even - (odd << 56) is the sum of the first 7 bytes of each, and nothing is lost of
 * that in up to 256 words. The same for `odd`, whose last bytes are the first ones of `even`, but for the
 * very first, and with the one behind the last word.
 */
#define SUM_STEP 7
#define SUM_LEAST (8 * SUM_STEP)
#define SUM_MOST (32 * SUM_STEP)
#define SUM_LINEAR (256 * 2 * SUM_STEP)

/* The number that 8 bytes are, the first of them the least. */
static __always_inline __u64 sum_word(const void *at)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return *(const __u64 *)at;
#else
    return __builtin_bswap64(*(const __u64 *)at);
#endif
}

/* A sum of such numbers as one of 16-bit words as they are in memory. */
static __always_inline __u64 sum_of_words(__u64 sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return sum;
#else
    return __builtin_bswap16(fold_words(sum));
#endif
}

/* In two sums each, for one addition need not wait for the other. */
static __always_inline void sum_steps(__u64 *sums, const void *at, __u32 bytes)
{
#pragma clang loop unroll(full)
    for (__u32 i = 0; i < bytes / SUM_STEP; i++) {
        sums[i % 4] += sum_word(at + i * SUM_STEP);
        /* Or the compiler loads more words at a time than there are registers. */
        barrier_var(sums[i % 4]);
    }
}

/* Adds to `sum` that of `length` bytes, at least one, that are all in the first buffer: a call would take
 * longer than the sum does. Returns 0 where they are not, or are too many. */
static __always_inline __u32 sum_linear(struct xdp_md *ctx, __u32 from, __u32 length, __u64 sum)
{
    void *at = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    void *last = at;
    __u32 left = length, to = from + length - sizeof(__u64);

    /* The verifier wants to see bounds in the very registers that are added. */
    barrier_var(from);
    if (from > SUM_FARTHEST - SUM_LINEAR)
        return 0;
    at += from;
    barrier_var(at);
    barrier_var(to);
    if (to > SUM_FARTHEST - sizeof(__u64))
        return 0;
    last += to;
    barrier_var(last);
    barrier_var(left);
    if (left > SUM_LINEAR || last + sizeof(__u64) > end)
        return 0;
    if (left > SUM_LEAST) {
        if (at + 1 > end)
            return 0;
        __u64 sums[4] = {0, (__u64) * (__u8 *)at << 56};

        if (left > SUM_MOST) {
            do {
                if (at + SUM_MOST + 1 > end)
                    return 0;
                sum_steps(sums, at, SUM_MOST);
                at += SUM_MOST;
                left -= SUM_MOST;
                barrier_var(at);
            } while (left > SUM_MOST);
            /* The same place in other terms: the verifier looks at the rest once, not after each turn. */
            to += sizeof(__u64) - left;
            barrier_var(to);
            if (to > SUM_FARTHEST - SUM_MOST)
                return 0;
            at = (void *)(long)ctx->data;
            at += to;
            barrier_var(at);
        }
#pragma clang loop unroll(full)
        for (__u32 size = SUM_MOST / 2; size >= SUM_LEAST; size /= 2) {
            if (left <= size)
                continue;
            if (at + size + 1 > end)
                return 0;
            sum_steps(sums, at, size);
            at += size;
            left -= size;
        }
        if (at + 1 > end)
            return 0;
        __u64 even = sums[0] + sums[2];
        __u64 odd = sums[1] + sums[3] - ((__u64) * (__u8 *)at << 56);

        sum += sum_of_words(even - (odd << 56));
        /* Odd words begin within a 16-bit one. */
        odd -= even << 56;
        sum += sum_of_words(((odd & 0xffffffff) + (odd >> 32)) << 8);
    }
#pragma clang loop unroll(full)
    for (__u32 size = 32; size >= sizeof(__u64); size /= 2) {
        if (left <= size)
            continue;
        if (at + size > end)
            return 0;
        sum += sum_words(at, size);
        at += size;
        left -= size;
    }
    /* One to eight are left: of the last eight, those before them go. */
    return fold_words(sum + sum_of_words(sum_word(last) >> ((64 - 8 * left) & 63)));
}

/* Adds to `sum` that of `length` bytes of the frame from `from` on, in whatever buffers they are. It walks
 * over all of them. Returns 0 where they are not all there, which no sum of a packet is. */
__noinline __u32 csum_range(struct xdp_md *ctx, __u32 from, __u32 length, __u32 sum)
{
    struct sum_walk walk = {.ctx = ctx, .at = from, .left = length, .sum = sum};

    if (!length)
        return sum;
    /* What is in `walk` now need not be kept in registers, or beside it, until it is used. */
    asm volatile("" : : "r"(&walk) : "memory");
    sum = sum_linear(ctx, from, length, sum);
    if (sum)
        return sum;
    bpf_loop(SUM_CHUNKS, sum_linear_chunk, &walk, 0);
    bpf_loop(SUM_CHUNKS, sum_chunk, &walk, 0);
    return walk.left ? 0 : walk.sum;
}

/* The sum of addresses, protocol and length that a transport checksum covers, too (RFC 768, RFC 8200, 8.1).
 * Mapped addresses' first words make no difference but for 0xffff, which is zero in ones' complement. */
static __always_inline __u32 csum_pseudo(const __u8 *source, const __u8 *destination, __u8 protocol,
                                         __u32 length)
{
    __u32 sum = csum_words(source, 16) + csum_words(destination, 16);

    return sum + bpf_htons(protocol) + bpf_htons(length) + bpf_htons(length >> 16);
}

/* The sum of the inner packet's bytes from `from` to `length`, the frame's end. Where its transport checksum
 * covers all the rest, nothing has to be walked over: that sums up to the complement of its pseudo header. */
__noinline __u32 csum_inner(struct xdp_md *ctx, struct inner *inner, __u32 from, __u32 length)
{
    if (!inner)
        return 0;
    __u32 l4 = inner->l4;
    __u32 covered = inner->end - l4;

    if (l4 && inner->end == length && !(inner->flags & (INNER_FRAGMENT | INNER_EXTENDED)) && l4 > from) {
        __u32 sum = csum_range(ctx, from, l4 - from, 0);
        __u32 rest = csum_reduce(csum_pseudo(inner->source, inner->destination, inner->protocol, covered));
        __be16 udp[2];

        switch (inner->protocol) {
        case IPPROTO_TCP:
            return csum_add(sum, rest ^ 0xffff);
        case IPPROTO_UDP:
            /* Length and checksum: none, or of another length, says nothing. */
            if (!bpf_xdp_load_bytes(ctx, l4 + 4, udp, sizeof(udp)) && udp[1] && udp[0] == bpf_htons(covered))
                return csum_add(sum, rest ^ 0xffff);
            break;
        case NEXT_ICMPV6:
            if (inner->kind == KIND_IPV6)
                return csum_add(sum, rest ^ 0xffff);
            break;
        case IPPROTO_ICMP:
            /* It covers just itself. */
            if (inner->kind == KIND_IPV4)
                return sum;
        }
    }
    return csum_range(ctx, from, length - from, 0);
}

#endif
