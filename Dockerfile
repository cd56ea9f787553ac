# freqtrade's own image with LSTMStrategy in it: `make image`, or `docker compose build`.
#
# freqtrade's image is on a Python for which there may be no TensorFlow. So networks are trained
# under Debian's own, in /opt/lstm-trainer, where our package looks for it.
# hadolint global ignore=DL3066
ARG TAG=stable
FROM freqtradeorg/freqtrade:${TAG}

USER root
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends python3 python3-venv \
  && rm -rf /var/lib/apt/lists/* \
  && install --directory --owner=ftuser --group=ftuser /opt/lstm-trainer /opt/lstm-model
USER ftuser

# Large and rarely anew, so it comes before what changes often.
RUN /usr/bin/python3 -m venv /opt/lstm-trainer \
  && /opt/lstm-trainer/bin/pip install --no-cache-dir \
    "tensorflow-cpu>=2.21,<2.23; sys_platform=='linux' and platform_machine=='x86_64'" \
    "tensorflow>=2.21,<2.23; sys_platform!='linux' or platform_machine!='x86_64'" \
    "pydantic>=2.10,<3" "numpy>=2.2"

COPY --chown=ftuser:ftuser pyproject.toml README.md LICENSE /opt/lstm-model/
COPY --chown=ftuser:ftuser lstm_model /opt/lstm-model/lstm_model
COPY --chown=ftuser:ftuser strategies /opt/lstm-model/strategies
RUN pip install --user --no-cache-dir /opt/lstm-model \
  && freqtrade-lstm trainer --help > /dev/null

# The entry point, the working folder and the only volume, /freqtrade/user_data, are freqtrade's.
