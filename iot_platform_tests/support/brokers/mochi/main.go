// An MQTT broker whose sessions, queues and retained messages are in a file: `broker <port> <file>`.
package main

import (
	"log"
	"os"
	"os/signal"
	"syscall"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/hooks/storage/bolt"
	"github.com/mochi-mqtt/server/v2/listeners"
)

func main() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	broker := mqtt.New(nil)
	must(broker.AddHook(new(auth.AllowHook), nil))
	must(broker.AddHook(new(bolt.Hook), &bolt.Options{Path: os.Args[2]}))
	must(broker.AddListener(listeners.NewTCP(listeners.Config{ID: "mqtt", Address: "127.0.0.1:" + os.Args[1]})))
	must(broker.Serve())
	<-end
	must(broker.Close())
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
