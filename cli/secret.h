/* What is kept with a guest and belongs on no screen: hidden unless --secrets asks for it. */
#pragma once

#include <jansson.h>

#include "cli/cli.h"

extern const struct cli_option secret_options[]; /* --secrets, for the table of verbs */

/* Hides them in an answer of storaged's `meta.get`: the CHAP secret, passwords in the guest's XML. */
int secret_hide_in_entries(const struct cli *cli, json_t *answer, struct err *err);
/* Hides the passwords in the text member `xml` of an answer of vmhad's `vm.show`. */
int secret_hide_in_xml(const struct cli *cli, json_t *answer, struct err *err);
