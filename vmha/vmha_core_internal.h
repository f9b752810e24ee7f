/* What vmha_core.c (events in) and vmha_rules.c (actions out) share. */
#pragma once

#include "vmha/vmha_core.h"

/* vmha_rules.c: looks at everything known and emits what is due. */
void rules_decide(struct vmha_core *core);
void rules_kill(struct vmha_core *core, struct vmha_guest *guest, const char *why);
/* Ends the pending command of a guest with "done" (code NULL) or an error. */
void rules_answer(struct vmha_core *core, struct vmha_guest *guest, const char *code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void rules_note(struct vmha_core *core, const char *format, ...) __attribute__((format(printf, 2, 3)));
void rules_crashed(struct vmha_core *core, struct vmha_guest *guest);
/* "This incarnation runs here no more and never will again" (R11 ii). */
void rules_sign_gone(struct vmha_guest *guest, uint64_t incarnation);
/* A successful claim: starts, or lets go when the group is no longer ours. */
void rules_claimed(struct vmha_core *core, struct vmha_guest *guest);

/* The known record with another state, its reason and force cleared. */
struct record rules_next_record(const struct vmha_guest *guest, enum record_state state);
/* One swap of a guest at a time. */
void rules_swap(struct vmha_core *core, struct vmha_guest *guest, enum vmha_swap kind, const struct record *record);

struct vmha_action *rules_emit(struct vmha_core *core, enum vmha_action_kind kind, const struct vmha_guest *guest);
/* "db1 in here": between the start and the verified end of a domain. */
bool rules_is_here(const struct vmha_guest *guest);
bool rules_names_us(const struct vmha_core *core, const struct vmha_guest *guest);

/* vmha_commands.c: takes what people ask; and carries on with it as far as what is known allows. */
void commands_ask(struct vmha_core *core, const struct vmha_event *event, enum vmha_command command);
void commands_decide(struct vmha_core *core, struct vmha_guest *guest);

static inline void rules_move(struct vmha_guest *guest, enum vmha_life life)
{
    fsm_move(&vmha_life_table, &guest->life, (int)life);
}
