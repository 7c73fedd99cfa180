/* Frames as bytes (RFC 6455 section 5.2): their heads, their masks.

   Lives here: reading and writing heads, unmasking; plain C over (pointer, length) pairs.
   Must never live here: Python objects, memory that is owned, state, what a frame means.

   Every function reads and writes only within the lengths it is given, so that it can be fuzzed
   alone. */

#ifndef TRIO_WS_FRAMES_H
#define TRIO_WS_FRAMES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { WS_CONTINUATION = 0, WS_TEXT = 1, WS_BINARY = 2, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10 };

enum { WS_RSV1 = 4, WS_RSV2 = 2, WS_RSV3 = 1 };

#define WS_MAX_HEAD 14
#define WS_MAX_CONTROL 125

typedef struct {
    uint64_t length;  /* of the payload, below 2**63 */
    size_t size;      /* of the head itself, without the mask */
    uint8_t fin;
    uint8_t rsv;
    uint8_t opcode;
    uint8_t masked;
    uint8_t mask[4];  /* the caller's to fill in */
} ws_head;

typedef enum {
    WS_HEAD_OK,
    WS_HEAD_SHORT,
    WS_HEAD_OPCODE,
    WS_HEAD_FRAGMENTED_CONTROL,
    WS_HEAD_LONG_CONTROL,
    WS_HEAD_WASTED_2,
    WS_HEAD_WASTED_8,
    WS_HEAD_MSB
} ws_head_status;

/* Read a head up to its mask. The order of the checks is wsproto's: it decides which fault is
   reported where there are several, and how many bytes it takes to report it. */
static inline ws_head_status
ws_read_head(const uint8_t *bytes, size_t available, ws_head *head)
{
    if (available < 2) {
        return WS_HEAD_SHORT;
    }
    head->fin = bytes[0] >> 7;
    head->rsv = (bytes[0] >> 4) & 7;
    head->opcode = bytes[0] & 15;
    head->masked = bytes[1] >> 7;
    head->length = bytes[1] & 127;
    head->size = 2;
    if ((head->opcode & 7) > 2) {
        return WS_HEAD_OPCODE;
    }
    if (head->opcode >= 8) {
        if (!head->fin) {
            return WS_HEAD_FRAGMENTED_CONTROL;
        }
        return head->length > WS_MAX_CONTROL ? WS_HEAD_LONG_CONTROL : WS_HEAD_OK;
    }
    if (head->length < 126) {
        return WS_HEAD_OK;
    }
    size_t more = head->length == 126 ? 2 : 8;
    if (available < 2 + more) {
        return WS_HEAD_SHORT;
    }
    uint64_t length = 0;
    for (size_t i = 0; i < more; i++) {
        length = length << 8 | bytes[2 + i];
    }
    if (more == 2 && length < 126) {
        return WS_HEAD_WASTED_2;
    }
    if (more == 8 && length < 65536) {
        return WS_HEAD_WASTED_8;
    }
    if (length >> 63) {
        return WS_HEAD_MSB;
    }
    head->length = length;
    head->size = 2 + more;
    return WS_HEAD_OK;
}

/* Write a head into `out`, which has room for WS_MAX_HEAD bytes; `mask` may be NULL. Returns its
   size. */
static inline size_t
ws_write_head(uint8_t *out, int opcode, int fin, int rsv, uint64_t length, const uint8_t *mask)
{
    size_t size = 2;
    uint8_t flag = mask != NULL ? 128 : 0;
    out[0] = (uint8_t)((fin ? 128 : 0) | (rsv & 7) << 4 | (opcode & 15));
    if (length < 126) {
        out[1] = (uint8_t)(flag | length);
    }
    else {
        int more = length < 65536 ? 2 : 8;
        out[1] = flag | (more == 2 ? 126 : 127);
        for (int i = 0; i < more; i++) {
            out[size++] = (uint8_t)(length >> 8 * (more - 1 - i));
        }
    }
    if (mask != NULL) {
        memcpy(out + size, mask, 4);
        size += 4;
    }
    return size;
}

/* Mask or unmask `size` bytes from `in` to `out`, which do not overlap; the first byte is number
   `phase` of its payload. Returns whether a byte of the result is above 127. */
static inline int
ws_mask(uint8_t *restrict out, const uint8_t *restrict in, size_t size, const uint8_t mask[4],
        uint64_t phase)
{
    uint8_t turned[8];
    for (unsigned i = 0; i < 8; i++) {
        turned[i] = mask[(phase + i) & 3];
    }
    uint64_t key, seen = 0;
    memcpy(&key, turned, 8);
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        uint64_t word;
        memcpy(&word, in + i, 8);
        word ^= key;
        seen |= word;
        memcpy(out + i, &word, 8);
    }
    for (; i < size; i++) {
        out[i] = in[i] ^ turned[i & 7];
        seen |= out[i];
    }
    return (seen & UINT64_C(0x8080808080808080)) != 0;
}

#endif
