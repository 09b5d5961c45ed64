/* SPDX-License-Identifier: GPL-2.0-only */
/* Encapsulation, the same for every protocol: user space built the outer header, this fits it to one packet.
 */
#ifndef MPTM_ENCAP_H
#define MPTM_ENCAP_H

#include "bounds.h"
#include "csum.h"
#include "forward.h"
#include "icmp.h"
#include "mss.h"
#include "route.h"
#include "stats.h"

/* A hash of the flow's addresses, as halves of 8 bytes. */
static __always_inline __u32 hash_addresses(const __u64 *source, const __u64 *destination)
{
    __u64 hash = (source[0] ^ source[1] * 0x9e3779b97f4a7c15) * 0xff51afd7ed558ccd;

    hash ^= hash >> 32;
    hash = (hash ^ destination[0] ^ destination[1] * 0x9e3779b97f4a7c15) * 0xc4ceb9fe1a85ec53;
    return hash ^ hash >> 32;
}

/* And of its protocol and ports, too. The source port is its upper bits, the flow label its lower ones. */
static __always_inline __u32 hash_ports(__u32 addresses, __u32 ports, __u8 protocol)
{
    __u64 hash = (((__u64)addresses << 32 | ports) ^ protocol) * 0xff51afd7ed558ccd;

    return hash >> 32 ^ hash;
}

/* A hash of the inner flow: addresses, protocol, ports. Fragments of one datagram must hash alike, and of
 * IPv6 extension headers only the first has all. */
static __always_inline __u32 flow_hash(const struct inner *inner)
{
    __u32 addresses = hash_addresses((const __u64 *)inner->source, (const __u64 *)inner->destination);
    int is_fragment = inner->flags & INNER_FRAGMENT;

    return hash_ports(addresses, is_fragment ? 0 : inner->ports, is_fragment ? 0 : inner->protocol);
}

/* What patching knows of a packet. */
struct patch {
    __u32 outer;    /* length of the whole outer frame */
    __u32 hash;     /* of the flow */
    __u32 payload;  /* sum of the payload, where a checksum wants it */
    __u32 sequence; /* GRE's */
    __u8 tos;
    __u8 ttl;
    __be16 fragment; /* IPv4's flags and offset, where they are not in the header already */
    __u8 protocol;   /* IP protocol number of an IP payload */
    __u8 pad[3];
};

/* `offset` is the tunnel's l3_offset, here and in patch_ipv6; in patch_udp, its l4_offset. */
static __always_inline int patch_ipv4(void *data, void *end, __u32 offset, const struct mptm_tunnel *tunnel,
                                      const struct patch *patch)
{
    struct iphdr *ip = data + offset;
    __u32 sum = tunnel->ip_sum;

    if (offset > MPTM_MAX_HEADER - sizeof(*ip))
        return DROP(MPTM_DROP_NO_TUNNEL);
    if ((void *)(ip + 1) > end)
        return DROP(MPTM_DROP_NO_ROOM);
    ip->tos = patch->tos;
    ip->tot_len = bpf_htons(patch->outer - offset);
    sum += bpf_htons(patch->tos) + ip->tot_len;
    if (tunnel->flags & MPTM_TUNNEL_TTL_INHERIT) {
        ip->ttl = patch->ttl;
        sum += bpf_htons(patch->ttl << 8);
    }
    if (tunnel->flags & (MPTM_TUNNEL_DF_INHERIT | MPTM_TUNNEL_DF_UNSET)) {
        ip->frag_off = patch->fragment;
        /* Only what may be fragmented needs an identification (RFC 6864, 4.1 and 4.2). */
        if (!patch->fragment)
            ip->id = bpf_get_prandom_u32();
        sum += ip->frag_off + ip->id;
    }
    if (tunnel->flags & MPTM_TUNNEL_IP_PROTOCOL && tunnel->type_offset < offset + sizeof(*ip)) {
        ip->protocol = patch->protocol;
        sum += bpf_htons(patch->protocol);
    }
    ip->check = csum_fold(sum);
    return 0;
}

static __always_inline int patch_ipv6(void *data, void *end, __u32 offset, const struct mptm_tunnel *tunnel,
                                      const struct inner *inner, const struct patch *patch)
{
    struct ipv6hdr *ip = data + offset;
    __u32 first = patch->tos << 20;

    if (offset > MPTM_MAX_HEADER - sizeof(*ip))
        return DROP(MPTM_DROP_NO_TUNNEL);
    if ((void *)(ip + 1) > end)
        return DROP(MPTM_DROP_NO_ROOM);
    if (tunnel->flags & MPTM_TUNNEL_LABEL_FLOW)
        first |= patch->hash & IPV6_LABEL;
    else if (tunnel->flags & MPTM_TUNNEL_LABEL_INHERIT)
        first |= inner->label;
    *(__be32 *)ip = *(const __be32 *)&tunnel->header[offset] | bpf_htonl(first);
    ip->payload_len = bpf_htons(patch->outer - offset - sizeof(*ip));
    if (tunnel->flags & MPTM_TUNNEL_TTL_INHERIT)
        ip->hop_limit = patch->ttl;
    if (tunnel->flags & MPTM_TUNNEL_IP_PROTOCOL && tunnel->type_offset < offset + sizeof(*ip))
        ip->nexthdr = patch->protocol;
    return 0;
}

/* The payload's type, where it is said; adds what it says to `sum`. */
static __always_inline int patch_type(void *data, void *end, const struct mptm_tunnel *tunnel,
                                      const struct patch *patch, __u32 *sum)
{
    __u32 offset = tunnel->type_offset;
    __be16 *type = data + offset;

    if (offset > MPTM_MAX_HEADER - sizeof(*type))
        return DROP(MPTM_DROP_NO_TUNNEL);
    if ((void *)(type + 1) > end)
        return DROP(MPTM_DROP_NO_ROOM);
    if (tunnel->flags & MPTM_TUNNEL_ETHERTYPE) {
        *type = patch->protocol == IPPROTO_IPV6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
        *sum += *type;
    } else {
        *(__u8 *)type = patch->protocol;
        *sum += bpf_htons(patch->protocol);
    }
    return 0;
}

static __always_inline int patch_udp(void *data, void *end, __u32 offset, const struct mptm_tunnel *tunnel,
                                     const struct patch *patch, __u32 sum)
{
    struct udphdr *udp = data + offset;

    if (offset > MPTM_MAX_HEADER - sizeof(*udp) - 4)
        return DROP(MPTM_DROP_NO_TUNNEL);
    if ((void *)(udp + 1) + 4 > end)
        return DROP(MPTM_DROP_NO_ROOM);
    udp->source = bpf_htons(tunnel->port_min + (__u32)(((__u64)patch->hash * tunnel->port_count) >> 32));
    udp->len = bpf_htons(patch->outer - offset);
    if (tunnel->flags & MPTM_TUNNEL_GTPU_LENGTH) {
        __be16 *length = (void *)(udp + 1) + 2;

        /* Of all behind the 8 bytes that every GTP-U header has (3GPP TS 29.281, 5.1). */
        *length = bpf_htons(patch->outer - offset - sizeof(*udp) - 8);
        sum += *length;
    }
    if (tunnel->flags & MPTM_TUNNEL_UDP_CHECKSUM) {
        /* The length counts as part of the pseudo header, too. */
        udp->check =
            csum_fold(csum_add(sum + tunnel->sum + udp->source + udp->len + udp->len, patch->payload));
        if (!udp->check)
            udp->check = 0xffff; /* zero would mean none (RFC 768) */
    }
    return 0;
}

static __always_inline int patch_gre(void *data, void *end, const struct mptm_tunnel *tunnel,
                                     const struct patch *patch, __u32 sum)
{
    if (tunnel->flags & MPTM_TUNNEL_SEQUENCE) {
        __u32 offset = tunnel->sequence_offset;
        __be16 *sequence = data + offset;

        if (offset > MPTM_MAX_HEADER - 4)
            return DROP(MPTM_DROP_NO_TUNNEL);
        if ((void *)(sequence + 2) > end)
            return DROP(MPTM_DROP_NO_ROOM);
        sequence[0] = bpf_htons(patch->sequence >> 16);
        sequence[1] = bpf_htons(patch->sequence);
        sum += sequence[0] + sequence[1];
    }
    if (tunnel->flags & MPTM_TUNNEL_GRE_CHECKSUM) {
        __u32 offset = tunnel->l4_offset;
        __u16 *words = data + offset;

        if (offset > MPTM_MAX_HEADER - 6)
            return DROP(MPTM_DROP_NO_TUNNEL);
        if ((void *)(words + 3) > end)
            return DROP(MPTM_DROP_NO_ROOM);
        words[2] = csum_fold(csum_add(sum + tunnel->sum, patch->payload));
    }
    return 0;
}

/* A tag's priority is in the upper three bits of the byte behind its type. */
static __always_inline int patch_pcp(void *data, void *end, const struct mptm_tunnel *tunnel, __u8 pcp)
{
    __u8 *tags = data + 2 * ETH_ALEN;

    if ((void *)tags + 2 * sizeof(struct vlan_tag) > end)
        return DROP(MPTM_DROP_NO_ROOM);
    tags[2] |= pcp << 5;
    if (tunnel->header_len >= 2 * ETH_ALEN + 2 * sizeof(struct vlan_tag))
        tags[6] |= pcp << 5;
    return 0;
}

/* Fills in what differs from packet to packet. */
static __always_inline int patch_header(void *data, void *end, const struct mptm_tunnel *tunnel,
                                        const struct inner *inner, const struct patch *patch)
{
    __u32 flags = tunnel->flags;
    __u32 sum = 0;
    int error = 0;

    if (flags & (MPTM_TUNNEL_ETHERTYPE | MPTM_TUNNEL_IP_PROTOCOL))
        error = patch_type(data, end, tunnel, patch, &sum);
    if (!error && flags & MPTM_TUNNEL_IPV4)
        error = patch_ipv4(data, end, tunnel->l3_offset, tunnel, patch);
    else if (!error && flags & MPTM_TUNNEL_IPV6)
        error = patch_ipv6(data, end, tunnel->l3_offset, tunnel, inner, patch);
    if (!error && flags & MPTM_TUNNEL_UDP)
        error = patch_udp(data, end, tunnel->l4_offset, tunnel, patch, sum);
    if (!error && flags & (MPTM_TUNNEL_GRE_CHECKSUM | MPTM_TUNNEL_SEQUENCE))
        error = patch_gre(data, end, tunnel, patch, sum);
    if (!error && flags & MPTM_TUNNEL_PCP_INHERIT)
        error = patch_pcp(data, end, tunnel, inner->pcp);
    return error;
}

/* What of the outer header comes from the inner packet: DSCP if wanted, and ECN always (RFC 6040, 4.1, normal
 * mode). */
static __always_inline void inherit(struct patch *patch, const struct mptm_tunnel *tunnel,
                                    const struct inner *inner)
{
    __u8 dscp = tunnel->flags & MPTM_TUNNEL_TOS_INHERIT ? inner->tos : tunnel->tos;

    patch->tos = (dscp & ~ECN_MASK) | (inner->tos & ECN_MASK);
    patch->ttl = inner->ttl ? inner->ttl : tunnel->ttl;
    patch->protocol = inner->kind == KIND_IPV6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
    patch->fragment = bpf_htons(IPV4_DF);
    if (tunnel->flags & MPTM_TUNNEL_DF_UNSET ||
        (tunnel->flags & MPTM_TUNNEL_DF_INHERIT && inner->kind == KIND_IPV4 && !(inner->flags & INNER_DF)))
        patch->fragment = 0;
}

/* What is done to the inner frame before it is wrapped up. `routed` says whether it was sent to a router. */
static __always_inline int prepare(struct xdp_md *ctx, const struct mptm_tunnel *tunnel, struct inner *inner,
                                   const __u8 *own_mac)
{
    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;

    if (data + ETH_HLEN > end)
        return DROP(MPTM_DROP_MALFORMED);
    if (tunnel->flags & MPTM_TUNNEL_IP_PAYLOAD || is_same_mac(data, own_mac)) {
        int error = decrement_ttl(data, end, inner);

        if (error)
            return error;
    }
    if (tunnel->flags & MPTM_TUNNEL_INNER_MAC)
        set_destination(data, tunnel->inner_mac);
    if (tunnel->flags & MPTM_TUNNEL_MSS_CLAMP && inner->protocol == IPPROTO_TCP)
        clamp_mss(ctx, inner, tunnel->mtu - (inner->kind == KIND_IPV6 ? 60 : 40));
    return 0;
}

/* As much as is copied at a time. */
#define HEADER_STEP 16

/* Sixteen bytes of the header. */
static __always_inline int write_step(void *data, void *end, const struct mptm_tunnel *tunnel, __u32 at)
{
    const __u64 *from = (const void *)&tunnel->header[at];
    __u64 *to = data + at;

    if ((void *)(to + 2) > end)
        return 0;
    to[0] = from[0];
    to[1] = from[1];
    return 1;
}

/*
 * Copies the header to the frame's front, where there is room for its `size` bytes. In steps, of which the
 * last overlaps the one before: a call of a helper takes longer. Returns whether it failed.
 */
static __always_inline int write_header(struct xdp_md *ctx, const struct mptm_tunnel *tunnel, __u32 size)
{
    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    __u32 last = size - HEADER_STEP;

    if (last > 5 * HEADER_STEP) {
        size = within(size, 1, MPTM_MAX_HEADER);
        return !size || bpf_xdp_store_bytes(ctx, 0, (void *)tunnel->header, size);
    }
    return !write_step(data, end, tunnel, 0) || (size > 32 && !write_step(data, end, tunnel, 16)) ||
           (size > 48 && !write_step(data, end, tunnel, 32)) ||
           (size > 64 && !write_step(data, end, tunnel, 48)) ||
           (size > 80 && !write_step(data, end, tunnel, 64)) || !write_step(data, end, tunnel, last);
}

/*
 * Makes the frame an outer one. `length` is the inner frame's, which the caller has found not too big.
 * Returns 0, or a drop.
 */
static __always_inline int encapsulate(struct xdp_md *ctx, struct mptm_tunnel *tunnel, struct inner *inner,
                                       struct mptm_interface *interface, __u32 id)
{
    struct patch patch = {};
    __u8 macs[2 * ETH_ALEN];
    void *data, *end;
    int error;

    __u32 length = inner->frame;
    __u32 size = tunnel->header_len;
    __u32 pop = tunnel->pop;

    if (tunnel->flags & MPTM_TUNNEL_UNRESOLVED)
        return DROP(MPTM_DROP_NO_NEIGHBOUR);
    if (size < 1 || size > MPTM_MAX_HEADER)
        return DROP(MPTM_DROP_NO_TUNNEL);
    error = prepare(ctx, tunnel, inner, interface->mac);
    if (error)
        return error;
    if (tunnel->flags & MPTM_TUNNEL_IP_PAYLOAD) {
        /* The IP packet alone, without what pads its frame. */
        pop = inner->l3;
        if (inner->end < length) {
            if (bpf_xdp_adjust_tail(ctx, (int)(inner->end - length)))
                return DROP(MPTM_DROP_MALFORMED);
            length = inner->end;
        }
    }
    if (tunnel->flags & (MPTM_TUNNEL_UDP_CHECKSUM | MPTM_TUNNEL_GRE_CHECKSUM))
        patch.payload = csum_inner(ctx, inner, pop, length);
    if (tunnel->flags & MPTM_TUNNEL_SEQUENCE) {
        struct mptm_tunnel_state *state = bpf_map_lookup_elem(&tunnel_state, &id);

        if (state)
            patch.sequence = __sync_fetch_and_add(&state->sent, 1);
    }
    inherit(&patch, tunnel, inner);
    patch.hash = flow_hash(inner);

    int grow = (int)size - (int)pop;

    patch.outer = length + grow;
    data = (void *)(long)ctx->data;
    end = (void *)(long)ctx->data_end;
    if (data + sizeof(macs) > end)
        return DROP(MPTM_DROP_MALFORMED);
    __builtin_memcpy(macs, data, sizeof(macs));
    if (bpf_xdp_adjust_head(ctx, -grow))
        return DROP(MPTM_DROP_NO_ROOM);
    if (bpf_xdp_store_bytes(ctx, 0, tunnel->header, size))
        return DROP(MPTM_DROP_NO_ROOM);
    data = (void *)(long)ctx->data;
    end = (void *)(long)ctx->data_end;
    error = patch_header(data, end, tunnel, inner, &patch);
    if (error)
        return error;
    if (data + sizeof(macs) > end)
        return DROP(MPTM_DROP_NO_ROOM);
    if (tunnel->flags & MPTM_TUNNEL_KEEP_DESTINATION)
        __builtin_memcpy(data, macs, ETH_ALEN);
    if (tunnel->flags & MPTM_TUNNEL_KEEP_SOURCE)
        __builtin_memcpy(data + ETH_ALEN, macs + ETH_ALEN, ETH_ALEN);
    return 0;
}

/*
 * Sends the outer frame on its way: to the underlay, or up the host's stack, which takes it for its own
 * routing. XDP_PASS alone would not do for that in native mode: of what a veth received, the kernel has noted
 * before XDP whom it was for, and would go on holding it for a broadcast or another host's. Through a cpumap
 * it becomes a new packet. Generic XDP notes it again, but leaves packets that it hands to a cpumap with
 * their headers misplaced.
 */
static __always_inline int send_outer(struct xdp_md *ctx, const struct mptm_tunnel *tunnel,
                                      const struct mptm_interface *interface)
{
    if (!(tunnel->flags & MPTM_TUNNEL_STACK))
        return redirect_to(tunnel->device);

    void *data = (void *)(long)ctx->data;

    if (data + ETH_ALEN > (void *)(long)ctx->data_end)
        return DROP(MPTM_DROP_NO_ROOM);
    __builtin_memcpy(data, interface->mac, ETH_ALEN);
    if (!(interface->flags & MPTM_INTERFACE_CPUS))
        return XDP_PASS;
    return bpf_redirect_map(&cpus, bpf_get_smp_processor_id(), XDP_PASS);
}

#endif
