/* The site and its keys as the first node hands them to the one that joins. */
#include <jansson.h>

#include "cli/site_json.h"
#include "tests/fuzz/fuzz.h"

static void site_both_ways(const json_t *document)
{
    struct site site, again;
    struct err err;
    if (site_json_decode(document, &site, &err) < 0)
        return;
    json_t *encoded = site_json_encode(&site, site.self);
    check(encoded && site_json_decode(encoded, &again, &err) == 0);
    json_t *twice = site_json_encode(&again, again.self);
    check(json_equal(encoded, twice));
    json_decref(encoded);
    json_decref(twice);
    fuzz_planted(true);
}

static void keys_both_ways(const json_t *document)
{
    struct site_secrets secrets;
    if (secrets_json_decode(document, &secrets) < 0)
        return;
    json_t *encoded = secrets_json_encode(&secrets);
    check(secrets_json_decode(encoded, &secrets) == 0);
    json_decref(encoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *document = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    if (document) {
        site_both_ways(document);
        keys_both_ways(document);
    }
    json_decref(document);
    return 0;
}
