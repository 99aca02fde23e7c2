"""grapnel under LangChain, LlamaIndex and Haystack: one module for each, over any collection, local or on a server.

    from api.frameworks.store import open_folder, open_server

    store = open_folder("notes")                                              # a folder of this machine
    store = open_server("http://127.0.0.1:8080", "notes", api_key="gk_...")   # a collection of a server

    api.frameworks.langchain     GrapnelVectorStore, GrapnelRetriever, GrapnelEmbeddings
    api.frameworks.llama_index   GrapnelVectorStore, GrapnelRetriever, GrapnelEmbedding, GrapnelRerank
    api.frameworks.haystack      GrapnelDocumentStore, GrapnelEmbeddingRetriever, GrapnelBM25Retriever,
                                 GrapnelHybridRetriever

Each needs its extra (`langchain`, `llamaindex`, `haystack`) and nothing else imports it.

Who makes the vectors is a property of the collection, never guessed. A collection whose dense field takes vectors of
clients (`dim` when it is made) gets them from the framework's embedding model, for documents and for queries; every
other collection encodes texts and queries itself, and needs no embedding model in the framework.

What is found is a passage. Where the collection does not cut documents, which is so unless it was made with chunking,
that is a document's whole text; else the framework gets the passage under its document's id, each document once.

Metadata must be JSON. A field that no document has is, in a filter, missing everywhere, not an error. Asynchronous
methods run the blocking ones on threads.

Telemetry: grapnel sends none; the frameworks are their makers'. Haystack reports pipelines to PostHog unless
HAYSTACK_TELEMETRY_ENABLED=false is in the environment before it is imported. LangChain sends traces to LangSmith where
LANGSMITH_TRACING (or LANGCHAIN_TRACING_V2) is true; leave it unset, or set it to false. llama-index-core sends nothing
by itself, but its defaults are hosted models: give an `embed_model` wherever an index is made.
"""
