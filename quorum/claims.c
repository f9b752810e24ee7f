/* Takes storaged's claims apart: what does not fit is counted, what is malformed is refused. */
#include "quorum/claims.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static_assert(WIRE_CLAIMS_MAX <= FREEZE_GROUPS_MAX, "every primary claim has a place in the freeze core");

static int take_ids(json_t *list, struct id *ret, size_t limit, unsigned *ret_count, unsigned *ret_refused)
{
    if (list != NULL && !json_is_array(list))
        return -EINVAL;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        struct id id;
        if (text == NULL || id_parse(text, &id) < 0)
            return -EINVAL;
        if (*ret_count == limit)
            ++*ret_refused;
        else
            ret[(*ret_count)++] = id;
    }
    return 0;
}

int claims_take(json_t *params, struct claims *ret)
{
    memset(ret, 0, sizeof *ret);
    json_t *primary = json_object_get(params, "primary"), *sole = json_object_get(params, "sole");
    int error = take_ids(primary, ret->primary, WIRE_CLAIMS_MAX, &ret->primary_count, &ret->refused);
    if (error == 0)
        error = take_ids(sole, ret->sole, FREEZE_GROUPS_MAX, &ret->sole_count, &ret->refused);
    ret->serves_primary = ret->primary_count > 0;
    return error;
}

int claims_take_group(json_t *params, struct id *ret)
{
    const char *text = json_string_value(json_object_get(params, "group"));
    return text == NULL || id_parse(text, ret) < 0 || id_is_null(ret) ? -EINVAL : 0;
}
