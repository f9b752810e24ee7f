/* How answers reach stdout. */
#include "cli/output.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/json_owner.h"
#include "cli/size.h"

#define COLUMNS_MAX 12
#define CELL_MAX 256

int output_json(json_t *document, struct err *err)
{
    json_owner json_t *owned = document;
    if (!owned)
        return err_set(err, -ENOMEM, "no_memory", "out of memory while writing the answer; try again");
    if (json_dumpf(owned, stdout, JSON_INDENT(2)) < 0 || putchar('\n') == EOF || fflush(stdout) == EOF)
        return err_set(err, -EIO, "io", "cannot write the answer to stdout: %m");
    return 0;
}

json_t *output_find(const json_t *object, const char *path)
{
    char key[64];
    const json_t *found = object;
    while (found && *path) {
        size_t length = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)length, path);
        found = json_object_get(found, key);
        path += length + (path[length] == '.');
    }
    return (json_t *)found;
}

const char *output_text(const json_t *object, const char *path, const char *otherwise)
{
    const char *text = json_string_value(output_find(object, path));
    return text ? text : otherwise;
}

json_int_t output_number(const json_t *object, const char *path, json_int_t otherwise)
{
    const json_t *value = output_find(object, path);
    return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

bool output_is_true(const json_t *object, const char *path) { return json_is_true(output_find(object, path)); }

/* Columns of characters, not of bytes: names and sentences may be UTF-8. */
static size_t text_width(const char *text)
{
    size_t width = 0;
    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

static void format_list(const json_t *list, char *text)
{
    size_t used = 0, index;
    json_t *item;
    json_array_foreach(list, index, item) {
        const char *name = json_is_object(item) ? output_text(item, "name", "?") : json_string_value(item);
        if (name && used < CELL_MAX)
            used += (size_t)snprintf(text + used, CELL_MAX - used, "%s%s", index ? ", " : "", name);
    }
    if (used == 0)
        snprintf(text, CELL_MAX, "-");
}

static void format_value(const json_t *value, enum output_kind kind, char text[static CELL_MAX])
{
    char size[SIZE_TEXT_MAX];
    if (kind == OUTPUT_BYTES && json_is_integer(value) && json_integer_value(value) >= 0)
        snprintf(text, CELL_MAX, "%s", size_format((uint64_t)json_integer_value(value), size));
    else if (json_is_boolean(value))
        snprintf(text, CELL_MAX, "%s", json_is_true(value) ? "yes" : "no");
    else if (json_is_array(value))
        format_list(value, text);
    else if (json_is_string(value))
        snprintf(text, CELL_MAX, "%s", json_string_length(value) ? json_string_value(value) : "-");
    else if (json_is_integer(value))
        snprintf(text, CELL_MAX, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_is_real(value))
        snprintf(text, CELL_MAX, "%g", json_real_value(value));
    else
        snprintf(text, CELL_MAX, "-");
}

static void print_padded(const char *text, size_t width, bool is_last)
{
    if (is_last)
        printf("%s\n", text);
    else
        printf("%s%*s", text, (int)(width - text_width(text) + 2), "");
}

void output_table(const json_t *rows, const struct output_column *columns, const char *when_empty)
{
    size_t widths[COLUMNS_MAX] = {0}, index, count = 0;
    char cell[CELL_MAX];
    json_t *row;
    if (json_array_size(rows) == 0) {
        puts(when_empty);
        return;
    }
    for (; columns[count].key && count < COLUMNS_MAX; count++) {
        widths[count] = text_width(columns[count].title);
        json_array_foreach(rows, index, row) {
            format_value(output_find(row, columns[count].key), columns[count].kind, cell);
            if (text_width(cell) > widths[count])
                widths[count] = text_width(cell);
        }
    }
    for (size_t i = 0; i < count; i++)
        print_padded(columns[i].title, widths[i], i + 1 == count);
    json_array_foreach(rows, index, row) {
        for (size_t i = 0; i < count; i++) {
            format_value(output_find(row, columns[i].key), columns[i].kind, cell);
            print_padded(cell, widths[i], i + 1 == count);
        }
    }
}

void output_fields(const json_t *object, const struct output_column *columns)
{
    char cell[CELL_MAX];
    size_t width = 0;
    for (const struct output_column *column = columns; column->key; column++)
        if (output_find(object, column->key) && text_width(column->title) > width)
            width = text_width(column->title);
    for (const struct output_column *column = columns; column->key; column++) {
        if (!output_find(object, column->key))
            continue;
        format_value(output_find(object, column->key), column->kind, cell);
        printf("%s:%*s%s\n", column->title, (int)(width - text_width(column->title) + 1), "", cell);
    }
}

static bool is_flat(const json_t *value) { return !json_is_object(value) && !json_is_array(value); }

static bool is_flat_list(const json_t *value)
{
    size_t index;
    json_t *item;
    json_array_foreach(value, index, item)
        if (!is_flat(item))
            return false;
    return json_is_array(value);
}

static void print_named(const char *name, const json_t *value, unsigned indent)
{
    char cell[CELL_MAX];
    size_t length = strlen(name);
    bool is_bytes = length > 6 && !strcmp(name + length - 6, "_bytes");
    if (is_flat(value) || is_flat_list(value)) {
        format_value(value, is_bytes ? OUTPUT_BYTES : OUTPUT_TEXT, cell);
        printf("%*s%.*s: %s\n", (int)indent, "", (int)(is_bytes ? length - 6 : length), name, cell);
        return;
    }
    printf("%*s%s:\n", (int)indent, "", name);
    output_tree(value, indent + 2);
}

/* Nesting is bounded by the parser that made the value (jansson: 2048) and by the 256 KiB of one answer. */
void output_tree(const json_t *value, unsigned indent)
{
    const char *key;
    json_t *member;
    size_t index;
    if (json_is_object(value)) {
        json_object_foreach((json_t *)value, key, member)
            print_named(key, member, indent);
        return;
    }
    json_array_foreach(value, index, member) {
        if (index)
            putchar('\n');
        output_tree(member, indent);
    }
}
