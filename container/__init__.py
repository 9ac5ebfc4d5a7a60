"""What the container adds to the bridge: the broker and the sensors' way in, from the environment.

    sensors ──▶ HAProxy ──▶ Mosquitto ──▶ bridge
              public ports   loopback only

`render.render` writes the configuration of both programs; nothing here runs while readings flow.

    settings      the variables, and which go together
    sources       a secret's text, from a variable, a file or Secret Manager
    users         who may log in, in Mosquitto's form
    certificates  whether PEM files will work, said before the broker says it worse
    identity      under which name the bridge connects
    limits        what fits into this machine
    broker        mosquitto.conf and its access rules, as text
    way_in        haproxy.cfg, as text

The bridge knows nothing of this package; of the bridge it uses environment, settings, secrets and
errors.
"""
