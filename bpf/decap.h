/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Decapsulation: an outer header is read into the endpoint that it would belong to. What is wrong with it is
 * only noted here, because a packet that belongs to no tunnel of ours is none of our business, right or
 * wrong.
 */
#ifndef MPTM_DECAP_H
#define MPTM_DECAP_H

#include "csum.h"
#include "maps.h"
#include "parse.h"
#include "stats.h"

struct outer {
    struct mptm_endpoint endpoint;
    __u32 strip;  /* bytes before the inner frame */
    __u32 length; /* of outer and inner together, without trailing padding */
    int reason;   /* enum mptm_reason: what is wrong with it */
};

/* RFC 7348, 5. */
struct vxlan {
    __u8 flags;
    __u8 reserved[3];
    __be32 vni; /* 24 bits, and 8 reserved */
};
#define VXLAN_I 0x08

/* RFC 8926, 3.4. */
struct geneve {
    __u8 version_length; /* 2 bits, and the length of the options in 4 bytes */
    __u8 flags;
    __be16 type;
    __be32 vni; /* 24 bits, and 8 reserved */
};
#define GENEVE_OAM 0x80
#define GENEVE_CRITICAL 0x40
#define GENEVE_OPTIONS 0x3f

/* As far as parse_outer looks, and the longest that `strip` can be. */
#define OUTER_LOOK (ETH_HLEN + IPV4_MAX_HEADER + sizeof(struct udphdr) + sizeof(struct geneve))
#define OUTER_MAX (OUTER_LOOK + GENEVE_OPTIONS * 4)

static __always_inline void note(struct outer *outer, enum mptm_reason reason)
{
    if (!outer->reason)
        outer->reason = reason;
}

static __always_inline int parse_vxlan(void *at, void *end, struct outer *outer)
{
    struct vxlan *header = at;

    if ((void *)(header + 1) > end)
        return 0;
    if (!(header->flags & VXLAN_I))
        note(outer, MPTM_DROP_TUNNEL_FLAGS);
    outer->endpoint.id = bpf_ntohl(header->vni) >> 8;
    outer->strip += sizeof(*header);
    return 1;
}

static __always_inline int parse_geneve(void *at, void *end, struct outer *outer)
{
    struct geneve *header = at;

    if ((void *)(header + 1) > end)
        return 0;
    if (header->version_length & ~GENEVE_OPTIONS)
        note(outer, MPTM_DROP_TUNNEL_VERSION);
    else if (header->flags & GENEVE_OAM)
        return 0; /* control messages are for the host */
    else if (header->flags & GENEVE_CRITICAL)
        note(outer, MPTM_DROP_CRITICAL_OPTION);
    else if (header->type != bpf_htons(ETH_P_TEB))
        note(outer, MPTM_DROP_TUNNEL_PAYLOAD);
    outer->endpoint.id = bpf_ntohl(header->vni) >> 8;
    outer->strip += sizeof(*header) + (header->version_length & GENEVE_OPTIONS) * 4;
    return 1;
}

static __always_inline int parse_udp(void *at, void *end, __u32 available, struct outer *outer)
{
    struct udphdr *udp = at;
    struct mptm_udp_ports *ports;
    __u32 zero = 0;

    if ((void *)(udp + 1) > end)
        return 0;
    ports = bpf_map_lookup_elem(&udp_ports, &zero);
    if (!ports)
        return 0;
    outer->endpoint.port = bpf_ntohs(udp->dest);
    outer->endpoint.protocol = ports->protocol[outer->endpoint.port];
    if (bpf_ntohs(udp->len) != available)
        note(outer, MPTM_DROP_OUTER_LENGTH);
    outer->strip += sizeof(*udp);
    switch (outer->endpoint.protocol) {
    case MPTM_PROTOCOL_VXLAN:
        return parse_vxlan(udp + 1, end, outer);
    case MPTM_PROTOCOL_GENEVE:
        return parse_geneve(udp + 1, end, outer);
    }
    return 0;
}

static __always_inline int parse_outer_ipv4(void *data, void *end, __u32 length, struct outer *outer)
{
    struct iphdr *ip = data + ETH_HLEN;

    if ((void *)(ip + 1) > end)
        return 0;
    __u32 header = ip->ihl * 4;
    __u32 total = bpf_ntohs(ip->tot_len);

    if (ip->protocol != IPPROTO_UDP || ip->version != 4 || header < sizeof(*ip) ||
        ip->frag_off & bpf_htons(IPV4_OFFSET))
        return 0;
    if (ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS))
        note(outer, MPTM_DROP_OUTER_FRAGMENT);
    if (total + ETH_HLEN > length || total < header)
        note(outer, MPTM_DROP_OUTER_LENGTH);
    map_ipv4(outer->endpoint.remote, &ip->saddr);
    map_ipv4(outer->endpoint.local, &ip->daddr);
    outer->strip = ETH_HLEN + header;
    outer->length = ETH_HLEN + total;
    return parse_udp((void *)ip + header, end, total - header, outer);
}

/* The tag goes and the MAC addresses stay: `strip` is what lies before the EtherType, less the addresses. */
static __always_inline int parse_outer_vlan(void *data, void *end, __u32 length, struct outer *outer)
{
    struct vlan_tag *tag = data + ETH_HLEN;

    if ((void *)(tag + 1) > end)
        return 0;
    outer->endpoint.protocol = MPTM_PROTOCOL_VLAN;
    outer->endpoint.id = bpf_ntohs(tag->tci) & VLAN_VID;
    outer->strip = sizeof(*tag);
    outer->length = length;
    return 1;
}

/* Whether the frame has a tunnel header of a protocol that we speak; fills in `outer`. */
static __always_inline int parse_outer(void *data, void *end, __u32 length, struct outer *outer)
{
    struct ethhdr *eth = data;

    if ((void *)(eth + 1) > end)
        return 0;
    if (eth->h_proto == bpf_htons(ETH_P_IP))
        return parse_outer_ipv4(data, end, length, outer);
    if (eth->h_proto == bpf_htons(ETH_P_8021Q))
        return parse_outer_vlan(data, end, length, outer);
    return 0;
}

/* What a packet that is ours must also satisfy. */
static __always_inline enum mptm_reason check_outer(void *data, void *end, const struct outer *outer)
{
    if (outer->reason)
        return outer->reason;
    if (outer->endpoint.protocol == MPTM_PROTOCOL_VLAN)
        return MPTM_DROP_NONE;
    if (outer->strip > outer->length)
        return MPTM_DROP_OUTER_LENGTH;

    struct iphdr *ip = data + ETH_HLEN;

    if ((void *)(ip + 1) > end || !csum_ipv4_ok(ip, end))
        return MPTM_DROP_OUTER_CHECKSUM;
    return MPTM_DROP_NONE;
}

/* Takes the outer header off. Returns 0, or a drop. */
static __always_inline int decapsulate(struct xdp_md *ctx, const struct outer *outer, __u32 length)
{
    __u8 macs[2 * ETH_ALEN];
    void *data;

    if (length > outer->length && bpf_xdp_adjust_tail(ctx, (int)(outer->length - length)))
        return DROP(MPTM_DROP_OUTER_LENGTH);
    data = (void *)(long)ctx->data;
    if (data + sizeof(macs) > (void *)(long)ctx->data_end)
        return DROP(MPTM_DROP_OUTER_LENGTH);
    __builtin_memcpy(macs, data, sizeof(macs));
    if (bpf_xdp_adjust_head(ctx, outer->strip))
        return DROP(MPTM_DROP_OUTER_LENGTH);
    if (outer->endpoint.protocol != MPTM_PROTOCOL_VLAN)
        return 0;
    data = (void *)(long)ctx->data;
    if (data + sizeof(macs) > (void *)(long)ctx->data_end)
        return DROP(MPTM_DROP_OUTER_LENGTH);
    __builtin_memcpy(data, macs, sizeof(macs));
    return 0;
}

#endif
