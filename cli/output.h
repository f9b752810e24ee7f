/* How answers reach stdout: one JSON document for programs; tables and fields for people. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "common/err.h"

/* Prints one document and a newline; steals it. -EIO when stdout is closed or full. */
int output_json(json_t *document, struct err *err);

enum output_kind {
    OUTPUT_TEXT,  /* text and numbers as they are */
    OUTPUT_BYTES, /* a number of bytes, as "10 GiB" */
    OUTPUT_YES,   /* a truth value, as "yes" or "no" */
    OUTPUT_LIST,  /* names, joined by commas; of objects their "name" */
};

struct output_column {
    const char *key; /* NULL ends the list; "a.b" looks into objects */
    const char *title;
    enum output_kind kind;
};

/* A table of an array of objects, as wide as its content; `when_empty` in its place when there is nothing. */
void output_table(const json_t *rows, const struct output_column *columns, const char *when_empty);
/* "title: value" lines of one object; columns it does not have are left out. */
void output_fields(const json_t *object, const struct output_column *columns);
/* Everything of an object, whatever its keys: for answers that are for looking at only. Keys that end in _bytes are
 * printed as sizes. */
void output_tree(const json_t *value, unsigned indent);

/* The value at "a.b.c", or NULL. */
json_t *output_find(const json_t *object, const char *path);
/* Its text, or `otherwise`. */
const char *output_text(const json_t *object, const char *path, const char *otherwise);
/* Its whole number, or `otherwise`. */
json_int_t output_number(const json_t *object, const char *path, json_int_t otherwise);
bool output_is_true(const json_t *object, const char *path);
