"""The `drtl` command: what there is, by name. Each command is a function in `app/commands/`.

It ends with 0 where all went well, 1 where something failed, 2 where it was called wrongly, 130 on Ctrl-C.
"""

import sys

try:
    import typer
    from rich.text import Text

    from app.commands import blobs, datasets, doctor, graph, jobs, keys, models, service, upscale, webhooks
    from app.commands.output import errors
    from app.commands.pairs import pairs
    from app.core.settings import BadSettings
    from app.failures import CommandFailed, next_step
    from drtl_client import DRTLError
except KeyboardInterrupt:  # Loading takes a moment, in which nothing has begun that could be told of.
    sys.exit(130)

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def group(about: str) -> typer.Typer:
    return typer.Typer(help=about, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False)


app = group("Few-shot image restoration as a service: pairs in, relation graph out, a model that restores the rest.")
app.command("up")(service.up)
app.command("demo")(service.demo)
app.command("bench", context_settings=PASS_ON, add_help_option=False)(service.bench)

jobs_app = group("Few-shot trainings.")
jobs_app.command("create")(jobs.create)
jobs_app.command("list")(jobs.list_jobs)
jobs_app.command("show")(jobs.show)
jobs_app.command("watch")(jobs.watch)
jobs_app.command("cancel")(jobs.cancel)
jobs_app.command("delete")(jobs.delete)
app.add_typer(jobs_app, name="jobs")

app.add_typer(pairs, name="pairs")

datasets_app = group("Pairs that were uploaded.")
datasets_app.command("list")(datasets.list_datasets)
datasets_app.command("delete")(datasets.delete)
app.add_typer(datasets_app, name="datasets")

app.command("graph")(graph.graph)

models_app = group("Registered models.")
models_app.command("list")(models.list_models)
models_app.command("show")(models.show)
models_app.command("download")(models.download)
models_app.command("promote")(models.promote)
models_app.command("delete")(models.delete)
app.add_typer(models_app, name="models")

app.command("upscale")(upscale.upscale)
app.command("doctor")(doctor.doctor)

blobs_app = group("Where images and weights are kept.")
blobs_app.command("copy")(blobs.copy)
app.add_typer(blobs_app, name="blobs")

keys_app = group("Who may use the service; on its own machine, or with its DRTL_DATABASE_URL.")
keys_app.command("create")(keys.create)
keys_app.command("list")(keys.list_keys)
keys_app.command("revoke")(keys.revoke)
app.add_typer(keys_app, name="keys")

webhooks_app = group("Addresses that hear of jobs.")
webhooks_app.command("create")(webhooks.create)
webhooks_app.command("list")(webhooks.list_webhooks)
webhooks_app.command("show")(webhooks.show)
webhooks_app.command("change")(webhooks.change)
webhooks_app.command("delete")(webhooks.delete)
webhooks_app.command("rotate")(webhooks.rotate)
webhooks_app.command("ping")(webhooks.ping)
webhooks_app.command("deliveries")(webhooks.deliveries)
webhooks_app.command("redeliver")(webhooks.redeliver)
app.add_typer(webhooks_app, name="webhooks")

prior_app = group("The prior that transfer starts from.")
prior_app.command("train", context_settings=PASS_ON, add_help_option=False)(service.prior_train)
prior_app.command("extend", context_settings=PASS_ON, add_help_option=False)(service.prior_extend)
prior_app.command("pretrain", context_settings=PASS_ON, add_help_option=False)(service.prior_pretrain)
prior_app.command("measure", context_settings=PASS_ON, add_help_option=False)(service.prior_measure)
app.add_typer(prior_app, name="prior")


def main() -> None:
    """Run the command; what a person can act on is told in a line or two, not in a traceback."""
    try:
        app()
    except (CommandFailed, DRTLError, BadSettings) as error:
        errors.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        if (step := next_step(error)) is not None:
            errors.print(Text.assemble(("next:  ", "dim"), step), soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("stopped")
        sys.exit(130)
