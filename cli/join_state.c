/* What the first node keeps for the second until it has joined. */
#include "cli/join_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/json_owner.h"
#include "cli/site_json.h"
#include "common/files.h"

#define JOIN_FILE_MAX 4096

static int refuse(struct err *err, const char *path)
{
    return err_set(err, -EINVAL, "invalid", "%s: it is damaged; bring it back from a backup or make the cluster anew",
                   path);
}

static int decode(const char *path, const char *text, struct join_state *ret, struct err *err)
{
    struct join_state state = {0};
    json_owner json_t *document = json_loads(text, 0, NULL);
    const json_t *joined = json_object_get(document, "joined"), *handed_out = json_object_get(document, "handed_out");
    if (!json_is_boolean(joined) || !json_is_boolean(handed_out))
        return refuse(err, path);
    state.joined = json_is_true(joined);
    state.handed_out = json_is_true(handed_out);
    if (!state.joined && secrets_json_decode(json_object_get(document, "secrets"), &state.secrets) < 0)
        return refuse(err, path);
    *ret = state;
    seal_wipe(&state, sizeof state);
    return 0;
}

int join_state_load(const char *path, struct join_state *ret, struct err *err)
{
    char *text = NULL;
    size_t size = 0;
    if (access(path, F_OK) < 0 && errno == ENOENT)
        return err_set(err, -ENOENT, "not_first",
                       "%s is not there: this is not the node on which `hcictl cluster init` was run; go to that one",
                       path);
    int result = files_read(path, JOIN_FILE_MAX, &text, &size, err);
    if (result < 0)
        return result;
    result = decode(path, text, ret, err);
    seal_wipe(text, size);
    free(text);
    return result;
}

int join_state_save(const char *path, const struct join_state *state, struct err *err)
{
    json_owner json_t *document = json_pack("{s:b, s:b}", "handed_out", state->handed_out, "joined", state->joined);
    if (!state->joined)
        json_object_set_new(document, "secrets", secrets_json_encode(&state->secrets));
    char *text = json_dumps(document, JSON_INDENT(2));
    if (!text)
        return err_set(err, -ENOMEM, "no_memory", "%s: out of memory while writing it; try again", path);
    int result = files_replace(path, text, strlen(text), 0600, err);
    seal_wipe(text, strlen(text));
    free(text);
    return result;
}
