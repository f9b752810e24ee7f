/* Hides what answers carry but no screen, log or ticket should. */
#include "cli/secret.h"

#include <errno.h>
#include <string.h>

#include "cli/json_owner.h"
#include "cli/output.h"
#include "common/cleanup.h"

#define HIDDEN "(hidden; --secrets shows it)"
#define SPACE " \t\r\n"

const struct cli_option secret_options[] = {
    {"secrets", NULL, 0, "show passwords too; without it they are hidden"},
    {NULL, NULL, 0, NULL},
};

/* The value of the attribute whose name ends at `at`: from its opening quote on, or NULL. */
static char *find_value(char *at)
{
    at += strspn(at, SPACE);
    if (*at != '=')
        return NULL;
    at += 1 + strspn(at + 1, SPACE);
    return *at == '\'' || *at == '"' ? at : NULL;
}

/* libvirt's own name for the passwords of consoles (VNC, SPICE); what it has others for are references to its secrets. */
static void hide_passwords(char *xml)
{
    static const char name[] = "passwd";
    for (char *at = xml; (at = strstr(at, name));) {
        bool is_name = at > xml && strchr(SPACE, at[-1]);
        at += strlen(name);
        char *value = is_name ? find_value(at) : NULL, *end = value ? strchr(value + 1, *value) : NULL;
        if (!end)
            continue;
        memset(value + 1, '*', (size_t)(end - value - 1));
        at = end;
    }
}

/* Replaces the text member `key`; one that is no text is left alone. */
static int hide_in_member(json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (!text)
        return 0;
    cleanup_free char *xml = strdup(text);
    if (!xml)
        return -ENOMEM;
    hide_passwords(xml);
    return json_object_set_new(object, key, json_string(xml)) < 0 ? -ENOMEM : 0;
}

/* An entry is JSON in a text. One that cannot be read is hidden as a whole. Of a guest's XML only the passwords are. */
static int hide_in_entry(json_t *entries, const char *key, const char *const *members)
{
    const char *text = json_string_value(json_object_get(entries, key));
    json_owner json_t *entry = text ? json_loads(text, 0, NULL) : NULL;
    if (!json_object_get(entries, key))
        return 0;
    if (!json_is_object(entry))
        return json_object_set_new(entries, key, json_string(HIDDEN)) < 0 ? -ENOMEM : 0;
    int result = 0;
    for (; *members && result == 0; members++) {
        if (!strcmp(*members, "xml"))
            result = hide_in_member(entry, *members);
        else if (json_object_get(entry, *members))
            result = json_object_set_new(entry, *members, json_string(HIDDEN)) < 0 ? -ENOMEM : 0;
    }
    cleanup_free char *hidden = json_dumps(entry, JSON_COMPACT);
    if (result < 0 || !hidden || json_object_set_new(entries, key, json_string(hidden)) < 0)
        return -ENOMEM;
    return 0;
}

static int told(int result, struct err *err)
{
    return result < 0 ? err_set(err, result, "no_memory", "out of memory while hiding passwords; try again") : 0;
}

int secret_hide_in_entries(const struct cli *cli, json_t *answer, struct err *err)
{
    json_t *entries = output_find(answer, "entries");
    if (cli_option_count(cli, "secrets"))
        return 0;
    static const char *const chap[] = {"secret", "mutual_secret", NULL}, *const guest[] = {"xml", NULL};
    int result = hide_in_entry(entries, "chap", chap);
    if (result == 0)
        result = hide_in_entry(entries, "guest", guest);
    return told(result, err);
}

int secret_hide_in_xml(const struct cli *cli, json_t *answer, struct err *err)
{
    return cli_option_count(cli, "secrets") ? 0 : told(hide_in_member(answer, "xml"), err);
}
