// SPDX-License-Identifier: Apache-2.0

package sluicegrpc_test

import (
	"context"
	"log"

	sluice "github.com/sluice-project/sluice/sdk/go"
	"github.com/sluice-project/sluice/sdk/go/sluicegrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

func ExampleUnaryServerInterceptor() {
	client, err := sluice.NewClient("")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	labels := sluicegrpc.WithLabels(func(ctx context.Context, method string) sluice.Labels {
		out := sluicegrpc.DefaultLabels(ctx, method)
		if users := metadata.ValueFromIncomingContext(ctx, "user-id"); len(users) > 0 {
			out["user_id"] = users[0]
		}
		return out
	})
	server := grpc.NewServer(
		grpc.UnaryInterceptor(sluicegrpc.UnaryServerInterceptor(client, "api", labels)),
		grpc.StreamInterceptor(sluicegrpc.StreamServerInterceptor(client, "api", labels)),
	)
	defer server.Stop()
}

func ExampleUnaryClientInterceptor() {
	client, err := sluice.NewClient("")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	conn, err := grpc.NewClient("inventory.example:443",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(sluicegrpc.UnaryClientInterceptor(client, "inventory")),
		grpc.WithStreamInterceptor(sluicegrpc.StreamClientInterceptor(client, "inventory")),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
}
