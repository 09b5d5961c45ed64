/* SPDX-License-Identifier: GPL-2.0-only */
/* The Internet checksum (RFC 1071) of an IPv4 header. */
#ifndef MPTM_CSUM_H
#define MPTM_CSUM_H

#include "parse.h"

static __always_inline __u16 csum_fold(__u32 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return ~sum;
}

/* Whether a received header sums up. The caller has checked that its 20 bytes are there and ihl >= 5. */
static __always_inline int csum_ipv4_ok(struct iphdr *ip, void *end)
{
    const __u16 *words = (const __u16 *)ip;
    __u32 sum = 0;

#pragma clang loop unroll(full)
    for (int i = 0; i < 10; i++)
        sum += words[i];
    for (int i = 10; i < IPV4_MAX_HEADER / 2; i++) {
        if (i >= ip->ihl * 2)
            break;
        if ((void *)(words + i + 1) > end)
            return 0;
        sum += words[i];
    }
    return csum_fold(sum) == 0;
}

#endif
