/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Parsing, with every bounds check inside: callers read like a state machine. Nothing here knows of xdp_md,
 * so that a tc program can use it as it is.
 */
#ifndef MPTM_PARSE_H
#define MPTM_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define VLAN_TAGS 2
#define VLAN_VID 0x0fff
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_OFFSET 0x1fff
#define IPV4_MAX_HEADER 60

/* As far as parse_inner looks: to the ports. */
#define INNER_LOOK (ETH_HLEN + VLAN_TAGS * sizeof(struct vlan_tag) + IPV4_MAX_HEADER + 4)

struct vlan_tag {
    __be16 tci;
    __be16 type; /* of what follows */
};

/* RFC 826, for Ethernet and IPv4. */
struct arp {
    __be16 hardware;
    __be16 protocol;
    __u8 hardware_len;
    __u8 protocol_len;
    __be16 operation;
    __u8 sender_mac[6];
    __u8 sender[4];
    __u8 target_mac[6];
    __u8 target[4];
};

enum kind {
    KIND_OTHER,     /* neither IP nor ARP, or nothing that has one destination */
    KIND_MALFORMED, /* wrong headers or lengths */
    KIND_IPV4,
    KIND_ARP,
};

/* Who a frame is from and for; for ARP, the sender and the target. */
struct inner {
    __u8 source[16]; /* as in abi.h */
    __u8 destination[16];
    __u32 ports; /* both, as they stand in the packet; zero where there are none, and for every fragment */
    __u32 protocol;
};

static __always_inline void map_ipv4(__u8 *to, const void *address)
{
    __u32 *words = (__u32 *)to;

    words[0] = 0;
    words[1] = 0;
    words[2] = bpf_htonl(0xffff);
    __builtin_memcpy(&words[3], address, 4);
}

static __always_inline int is_vlan(__be16 type)
{
    return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

static __always_inline enum kind parse_ipv4(void *at, void *end, __u32 length, struct inner *inner)
{
    struct iphdr *ip = at;

    if ((void *)(ip + 1) > end)
        return KIND_MALFORMED;
    __u32 header = ip->ihl * 4;
    __u32 total = bpf_ntohs(ip->tot_len);

    if (ip->version != 4 || header < sizeof(*ip) || total < header || total > length)
        return KIND_MALFORMED;
    /* Multicast and above: class D and E, and the limited broadcast address. */
    if ((bpf_ntohl(ip->daddr) >> 28) >= 0xe)
        return KIND_OTHER;
    map_ipv4(inner->source, &ip->saddr);
    map_ipv4(inner->destination, &ip->daddr);
    inner->protocol = ip->protocol;
    inner->ports = 0;
    /* All fragments of a datagram must hash alike, and only the first has ports. */
    if (ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_OFFSET))
        return KIND_IPV4;
    if (ip->protocol == IPPROTO_TCP || ip->protocol == IPPROTO_UDP || ip->protocol == IPPROTO_SCTP) {
        __u32 *ports = at + header;

        if ((void *)(ports + 1) <= end && total >= header + 4)
            inner->ports = *ports;
    }
    return KIND_IPV4;
}

static __always_inline enum kind parse_arp(void *at, void *end, __u32 length, struct inner *inner)
{
    struct arp *arp = at;

    if ((void *)(arp + 1) > end || length < sizeof(*arp))
        return KIND_MALFORMED;
    if (arp->hardware != bpf_htons(1) || arp->protocol != bpf_htons(ETH_P_IP) || arp->hardware_len != 6 ||
        arp->protocol_len != 4)
        return KIND_OTHER;
    map_ipv4(inner->source, arp->sender);
    map_ipv4(inner->destination, arp->target);
    inner->protocol = 0;
    inner->ports = 0;
    return KIND_ARP;
}

/*
 * Reads a frame from its EtherType on: `at` points to it, `macs` to the destination address, and `length` is
 * how much of the frame, from `at`, there is in all buffers together; what lies behind is padding, and none
 * of the frame.
 */
static __always_inline enum kind parse_inner(void *macs, void *at, void *end, __u32 length,
                                             struct inner *inner)
{
    __be16 type = 0;

    if (macs + ETH_ALEN > end || at + sizeof(type) > end || length < sizeof(type))
        return KIND_MALFORMED;
    type = *(__be16 *)at;
    at += sizeof(type);
    length -= sizeof(type);
    for (int i = 0; i < VLAN_TAGS && is_vlan(type); i++) {
        struct vlan_tag *tag = at;

        if ((void *)(tag + 1) > end || length < sizeof(*tag))
            return KIND_MALFORMED;
        type = tag->type;
        at = tag + 1;
        length -= sizeof(*tag);
    }
    if (type == bpf_htons(ETH_P_ARP))
        return parse_arp(at, end, length, inner);
    if (type != bpf_htons(ETH_P_IP) || (*(__u8 *)macs & 1))
        return KIND_OTHER;
    return parse_ipv4(at, end, length, inner);
}

#endif
