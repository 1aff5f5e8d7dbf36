/* The memory that a strip is compressed in. */
#ifndef LUNA_WORKSPACE_H
#define LUNA_WORKSPACE_H

#include "block.h"
#include "deep.h"
#include "parse.h"

/* A sample of a block stands for all of it from this size on. CARRIED: fewer tokens and literals than this wait for the
 * next block, so that where nearly everything repeats, its codes serve for long. */
enum { SAMPLED_BYTES = 64 * 1024, CARRIED = 16 * 1024 };

typedef struct {
    int isa;
    size_t room; /* bytes of the largest block */
    row_buffers rows;
    u8 *filtered; /* WINDOW bytes of history, then a block */
    u64 *covered;
    u32 *edges;
    token *tokens;
    codebook *book;
    tile_memory *tiles; /* with the scanner of the strip */
    u8 *literals; /* NULL until needed, as what follows */
    parser *strings;
    sequence waiting;
    plan plan;
    int misled; /* the plan's filter does not suit the blocks that come */
    int mixed; /* where runs were planned, the search that was found better; METHOD_RUNS: none */
    unsigned pause, pauses; /* blocks to pass until the next trial of that, and after the last one that failed */
    u8 *memory;
} workspace;

INLINE size_t whole_lines(size_t bytes) { return (bytes + 63) / 64 * 64; }

static luna_status open_workspace(workspace *w, const strip *s) {
    memset(w, 0, sizeof *w);
    w->isa = detect_isa();
    w->room = block_bytes(s, s->level < 5 ? BLOCK_BYTES : SMALL_BLOCK_BYTES);
    const size_t piece = longest_piece(s, w->room);
    size_t rows = row_buffer_bytes(piece), filtered = whole_lines(WINDOW + w->room + 3 * MARGIN);
    size_t covered = whole_lines((w->room / 64 + 3) * 8), edges = whole_lines((2 * w->room / SHORTEST_RUN + 8 + EDGES_AFTER) * sizeof(u32));
    size_t tokens = whole_lines((w->room / MIN_MATCH + CARRIED + 2) * sizeof(token)), book = whole_lines(sizeof(codebook));
    w->memory = malloc(rows + filtered + covered + edges + tokens + book + sizeof(tile_memory));
    if (!w->memory)
        return LUNA_NO_MEMORY;
    u8 *at = w->memory;
    w->rows = row_buffers_in(at, piece);
    w->filtered = at += rows;
    /* What is before the first block is no match for it, but the parser looks before it knows. */
    memset(at + (s->level < 5 ? WINDOW - MARGIN : 0), 0, s->level < 5 ? MARGIN : WINDOW);
    w->covered = (u64 *)(void *)(at += filtered);
    w->edges = (u32 *)(void *)(at += covered);
    w->tokens = (token *)(void *)(at += edges);
    w->book = (codebook *)(void *)(at += tokens);
    w->tiles = (tile_memory *)(void *)(at + book);
    return LUNA_OK;
}

static luna_status open_literals(workspace *w) {
    if (!w->literals)
        w->literals = malloc(w->room + CARRIED + SCAN_SLACK);
    w->waiting.tokens = w->tokens;
    w->waiting.literals = w->literals;
    return w->literals ? LUNA_OK : LUNA_NO_MEMORY;
}

static luna_status open_strings(workspace *w) {
    if (w->strings)
        return LUNA_OK;
    parser *p = w->strings = malloc(sizeof(parser) + 17 * w->room + 1024);
    if (!p)
        return LUNA_NO_MEMORY;
    memset(p, 0, sizeof *p);
    p->path_cost = (u32 *)(void *)(p + 1);
    p->parse_step = (match *)(void *)(p->path_cost + w->room + 1);
    p->found = p->parse_step + w->room;
    p->many = (u8 *)(p->found + 2 * w->room + MOST_FOUND);
    return LUNA_OK;
}

static void close_workspace(workspace *w) {
    free(w->strings);
    free(w->literals);
    free(w->memory);
}

#endif
