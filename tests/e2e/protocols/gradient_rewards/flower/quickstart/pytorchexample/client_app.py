"""A client: trains and tests what it is sent."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from pytorchexample.task import Net, load_part
from pytorchexample.task import test as tested
from pytorchexample.task import train as trained

app = ClientApp()


def sent(msg: Message) -> Net:
    """The model of a message."""
    model = Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    return model


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Trains on the node's part of the data."""
    torch.manual_seed(context.node_config["partition-id"])
    model = sent(msg)
    loader, _ = load_part(context.node_config, context.run_config["batch-size"])
    loss = trained(model, loader, context.run_config["local-epochs"], msg.content["config"]["lr"])
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(loader.dataset)})
    return Message(content=RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Tests on the node's part of the data."""
    _, loader = load_part(context.node_config, context.run_config["batch-size"])
    loss, accuracy = tested(sent(msg), loader)
    metrics = MetricRecord({"eval_loss": loss, "eval_acc": accuracy, "num-examples": len(loader.dataset)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)
