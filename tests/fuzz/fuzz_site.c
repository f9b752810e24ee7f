/* hci.conf and secrets.conf: a site that loads can be saved, and loads again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/site.h"
#include "tests/fuzz/fuzz.h"

static void read_back(const struct site *site)
{
    struct site again;
    struct err err;
    char path[64];
    snprintf(path, sizeof(path), "%s/site-XXXXXX", fuzz_folder());
    int fd = mkstemp(path);
    check(fd >= 0);
    close(fd);
    int saved = site_save(path, site, &err), loaded = saved == 0 ? site_load(path, &again, &err) : 0;
    unlink(path);
    check(loaded == 0);
    if (saved == 0) {
        check(strcmp(again.name, site->name) == 0 && again.self == site->self);
        check(again.portal_count == site->portal_count);
        check(id_equal(&again.nodes[0].id, &site->nodes[0].id) && id_equal(&again.nodes[1].id, &site->nodes[1].id));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    bool secrets_wanted = fuzz_u8(&input) & 1;
    struct site site;
    struct site_secrets secrets;
    struct err err;
    char path[32];
    int fd = fuzz_file(input.data, input.size, path);
    int r = secrets_wanted ? site_load_secrets(path, &secrets, &err) : site_load(path, &site, &err);
    if (r < 0)
        check(memchr(err.text, 0, sizeof(err.text)) && err.text[0]);
    else if (!secrets_wanted) {
        fuzz_planted(site.portal_count > 0);
        read_back(&site);
    }
    close(fd);
    return 0;
}
